"""The site: what is on it, and how notebooks become pages of it. `make site` builds it and checks every link."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="pip install '.[site]'")
pytest.importorskip("latex2mathml", reason="pip install '.[site]'")

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("ps_nb_pages", ROOT / "docs" / "pages.py")
pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pages)


def leaves(entries):
    "Paths of a navigation, in order."
    if isinstance(entries, str):
        return [entries]
    return [path for entry in entries for path in leaves(list(entry.values())[0] if isinstance(entry, dict) else entry)]


def test_the_navigation_names_every_page_once():
    listed = leaves(pages.navigation())
    files = set(pages.site_files())
    notebooks = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_" not in str(path)}
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name in files if name.endswith((".md", ".ipynb"))} and notebooks < set(listed)
    assert [name for name in listed if re.match(r"nbs/\d\d_.*ipynb", name)] == sorted(
        name for name in notebooks if re.match(r"nbs/\d\d_", name)), "chapters in their own order"
    assert [Path(name).stem for name in listed if name.startswith("nbs/papers/")] == ["e2e", "ctxg", "cgps", "rsiam", "cucps"]


def test_a_notebook_becomes_markdown(tmp_path):
    def cell(source, *outputs):
        return dict(cell_type="code", source=source, outputs=outputs)

    table = '<div>\n<style scoped>\n\np {}\n</style>\n<table border="1" class="dataframe">\n\n<tr><td>1</td></tr></table></div>'
    cells = [dict(cell_type="markdown", source=["# Title\n", "text"]), cell("#| default_exp losses.own"),
             cell("#| hide\nsecret = 1"), cell("#| export\ndef f(): pass"),
             cell("f()  # ```", dict(output_type="stream", name="stdout", text="said\n")),
             cell("g()", dict(data={"text/plain": "no", "text/html": table}), dict(data={"image/png": "QUJD\n"}))]
    path = tmp_path / "own.ipynb"
    path.write_text(json.dumps(dict(cells=cells)))
    assert pages.notebook_markdown(path).split("\n\n") == [
        "# Title\ntext", '``` {.python title="ps_nb.losses.own"}\ndef f(): pass\n```', "```` python\nf()  # ```\n````",
        "``` text\nsaid\n```", "``` python\ng()\n```", "<div>\n<table>\n<tr><td>1</td></tr></table></div>",
        '<p><img class="output" alt="Output of the code above" src="data:image/png;base64,QUJD"></p>']


def test_the_equations_of_the_papers_are_drawn_with_their_numbers():
    displayed = [found for path in (ROOT / "nbs" / "papers").glob("*.ipynb") for cell in pages.cells(path)
                 if cell["cell_type"] == "markdown" for found in re.findall(r"\$\$(.+?)\$\$", cell["source"], re.DOTALL)]
    assert len(displayed) >= 20
    for latex in displayed:
        drawn, tag = pages.mathml(latex, display=True), re.search(r"\\tag\{(.*?)\}", latex)
        assert drawn.count("<math") == 1 and ("number" in drawn) == bool(tag)
        assert not tag or drawn.endswith(f'<span class="number">({tag[1]})</span></div>')
    with pytest.raises(ValueError, match="not understood"):
        pages.mathml(r"\unheardof{x}", display=False)
