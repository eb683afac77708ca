"""A hook of mkdocs: the repository's pages and notebooks as a site, from where they lie, so that links between them are the same
here and in the repository.

Notebooks become Markdown before mkdocs reads them, so its own checks of links and headings hold for them too. Equations become
MathML while the site is built: a browser draws them without a script."""

import html
import json
import re
from pathlib import Path
from urllib.parse import unquote

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "ps_nb", "nbs/EQUATIONS.md": "Equations, algorithms, figures and tables", "results/README.md": "Results",
         "CONTRIBUTING.md": "Changing ps_nb", "CHANGELOG.md": "Changes"}  # with their titles in the navigation
SHOWN = ("text/html", "text/markdown", "image/png", "text/plain")  # of an output in several forms the first is shown
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


class Notebook(File):
    "A notebook, which is a page like a Markdown file."

    def is_documentation_page(self) -> bool:
        return True


def cells(path: Path) -> list[dict]:
    "Cells of a notebook, each source one text."
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def notebooks(folder: str, pattern: str = "*.ipynb") -> list[dict]:
    "Navigation of notebooks in a folder of `nbs`: the title of each, and its path."
    paths = sorted((ROOT / "nbs" / folder).glob(pattern))
    return [{cells(path)[0]["source"].splitlines()[0].removeprefix("# "): str(path.relative_to(ROOT))} for path in paths]


def navigation() -> list[dict]:
    "All pages in the order of reading: papers (as in their index), chapters, experiments, results."
    chapters = [path.name for path in sorted((ROOT / "nbs").glob("[0-9]*_*"))]
    papers = list(json.loads((ROOT / "nbs" / "papers" / "index.json").read_text(encoding="utf-8")))
    others = {path.name for path in (ROOT / "nbs" / "experiments").iterdir() if path.is_dir()} - set(papers)
    numbered = [{name[3:].capitalize(): [f"nbs/{name}/README.md", *notebooks(name)]} for name in chapters]
    page = {path: {title: path} for path, title in PAGES.items()}
    return [
        page["README.md"],
        {"Papers": [*(entry for key in papers for entry in notebooks("papers", f"{key}.ipynb")), page["nbs/EQUATIONS.md"]]},
        {"Chapters": ["nbs/README.md", *numbered]},
        {"Experiments": [{key: notebooks(f"experiments/{key}")} for key in (*papers, *sorted(others))]},
        page["results/README.md"],
        {"Changing it": [page["CONTRIBUTING.md"], page["CHANGELOG.md"]]},
    ]


def site_files() -> list[str]:
    "Every file of the site, relative to the repository."
    found = [*(ROOT / name for name in PAGES), *(ROOT / "nbs").rglob("README.md"), *(ROOT / "nbs").rglob("*.ipynb"),
             *(path for path in (ROOT / "results").rglob("*") if path.suffix in (".json", ".csv", ".png")),
             *(path for path in (ROOT / "docs").iterdir() if path.suffix in (".jpg", ".bib", ".css"))]
    return sorted({path.relative_to(ROOT).as_posix() for path in found if ".ipynb_checkpoints" not in path.parts})


def fenced(text: str, language: str, title: str = "") -> str:
    "A block of code, behind a fence longer than any in it."
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    heading = f'{{.{language} title="{title}"}}' if title else language
    return f"{fence} {heading}\n{text.rstrip()}\n{fence}"


def shown(output: dict) -> str:
    "Markdown of an output of a cell."
    data = output.get("data", {"text/plain": output.get("text", "")})
    kind = next(kind for kind in SHOWN if kind in data)
    text = "".join(data[kind])
    if kind == "text/html":  # of pandas: without its own style, and with no blank line, which would end the block
        text = re.sub(r"<style.*?</style>| border=\"1\"| class=\"dataframe\"", "", text, flags=re.DOTALL)
        return "\n".join(line for line in text.splitlines() if line.strip())
    if kind == "image/png":
        return f'<p><img class="output" alt="Output of the code above" src="data:image/png;base64,{"".join(text.split())}"></p>'
    return text if kind == "text/markdown" else fenced(text, "text")


def notebook_markdown(path: Path) -> str:
    "A notebook as Markdown: prose, code without directives of nbdev, and outputs. Code that is exported names its module."
    parts, module = [], ""
    for cell in cells(path):
        directives = re.findall(r"^#\|\s*(.+)\n?", cell["source"], flags=re.MULTILINE)
        source = re.sub(r"^#\|.*\n?", "", cell["source"], flags=re.MULTILINE).strip()
        module = next((f"ps_nb.{line.split()[1]}" for line in directives if line.startswith("default_exp")), module)
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif "hide" not in directives:
            parts += [fenced(source, "python", module if "export" in directives else "")] if source else []
            parts += [shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts)


def anchor(heading: str, separator: str) -> str:
    "The id of a heading as Jupyter makes it, which is what links into notebooks name."
    return heading.replace(" ", separator)


def mathml(latex: str, display: bool) -> str:
    "An equation for browsers; its number stands beside it, which MathML has no element for."
    tag = re.search(r"\\tag\{(.*?)\}", latex)
    body = re.sub(r"\\tag\{.*?\}", "", latex).replace(r"\arg", r"\operatorname{arg}")
    drawn = convert(body.strip(), display="block" if display else "inline")
    if "\\" in re.sub(r"<[^>]*>", "", drawn):
        raise ValueError(f"not understood by latex2mathml: {latex}")
    number = f'<span class="number">({tag[1]})</span>' if tag else ""
    return f'<div class="equation">{drawn}{number}</div>' if display else drawn


def on_config(config):
    config.nav = navigation()
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files, config):
    "The repository's files in the place of those of `docs`; the theme's own stay."
    own = [file for file in files if file.src_dir != config.docs_dir]
    kinds = {name: Notebook if name.endswith(".ipynb") else File for name in site_files()}
    return Files([*own, *(kind.generated(config, name, abs_src_path=str(ROOT / name)) for name, kind in kinds.items())])


def on_page_read_source(page, config):
    return notebook_markdown(ROOT / page.file.src_uri) if isinstance(page.file, Notebook) else None


def on_page_markdown(markdown, page, config, files):
    "Headings in links are written out: mkdocs compares them as they are written."
    return re.sub(r"(\]\([^)\s]*#)([^)\s]+)", lambda found: found[1] + unquote(found[2]), markdown)


def on_page_content(content, page, config, files):
    return EQUATION.sub(lambda found: mathml(html.unescape(found[2]), found[1] == "div"), content)
