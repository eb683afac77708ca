"""The repository agrees with itself: packaging, exported code, notebooks and what they show."""

import ast
import base64
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

import ps_nb
from ps_nb.core import read_json
from ps_nb.reproduction.contents import contents, entry_experiments, papers_index
from ps_nb.reproduction.paper_pages import refreshed

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "nbs").glob("[0-9]*/[0-9]*.ipynb"))
CHAPTERS = sorted(path.parent for path in (ROOT / "ps_nb").glob("*/__init__.py"))
PAPERS = sorted((ROOT / "nbs" / "papers").glob("*.ipynb"))
EXPERIMENTS = sorted((ROOT / "nbs" / "experiments").glob("*/*.ipynb"))
PROGRAMS = Path(sys.executable).parent
PATHS = re.compile(r"(?<![\w.])/(?:" + "|".join(["work", "root", "farm", "tmp", "home", "Users"]) + r")/\S*")
name_of = lambda path: f"{path.parent.name}/{path.stem}"  # noqa: E731


def settings():
    parser = ConfigParser()
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def requirements(key):
    return [line.strip() for line in settings()[key].splitlines() if line.strip()]


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def exported_sources(path):
    "Source of every exported cell without its directives."
    sources = [cell.source for cell in code_cells(path) if re.match(r"#\|\s*exports?\b", cell.source)]
    return ["\n".join(line for line in source.splitlines() if not line.startswith("#|")) for source in sources]


def directive(path, name):
    found = [match[1] for cell in code_cells(path) if (match := re.match(rf"#\|\s*{name}\s+(\S+)", cell.source))]
    return found[0] if found else None


# ---------------------------------------------------------------- packaging


def test_packaging_files_agree():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    nbdev = config["tool"]["nbdev"]
    assert "project" not in config  # settings.ini is the source of metadata, and nbdev must not write a second one
    assert (settings()["lib_path"], settings()["nbs_path"]) == (nbdev["lib_path"], nbdev["nbs_path"]) == ("ps_nb", "nbs")
    assert nbdev["update_pyproject"] is False and nbdev["allowed_cell_metadata_keys"] == ["tags"]
    assert settings()["version"] == ps_nb.__version__
    ruff = tomllib.loads((ROOT / "ruff.toml").read_text(encoding="utf-8"))
    assert ruff["target-version"] == "py" + settings()["min_python"].replace(".", "")


def test_nbdev_is_pinned_exactly():
    (pin,) = [line for line in requirements("dev_requirements") if line.startswith("nbdev")]
    assert re.fullmatch(r"nbdev==\d+\.\d+\.\d+", pin)
    assert pin == f"nbdev=={importlib.metadata.version('nbdev')}", "exports differ between versions of nbdev"


def test_setup_reads_the_settings():
    command = [sys.executable, "setup.py", "--name", "--version", "--license", "--description"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    expected = [settings()[key] for key in ("lib_name", "version", "license", "description")]
    assert [line for line in told.stdout.splitlines() if line.strip()][-4:] == expected


def test_the_command_exists():
    (script,) = requirements("console_scripts")
    command, module, function = re.fullmatch(r"([\w-]+)=([\w.]+):(\w+)", script).groups()
    assert command == "ps-nb"
    done = subprocess.run([sys.executable, "-c", f"from {module} import {function}; assert callable({function})"], cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


# ---------------------------------------------------------------- exported code


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The notebooks and the settings, elsewhere, with nothing exported yet."
    folder = tmp_path_factory.mktemp("copy")
    for name in ("settings.ini", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "nbs", folder / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (folder / "ps_nb").mkdir()
    for face in (ROOT / "ps_nb").rglob("__init__.py"):  # written by hand
        (folder / face.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(face, folder / face.relative_to(ROOT))
    return folder


def run_in(folder, program):
    done = subprocess.run([PROGRAMS / program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_what_the_notebooks_export(copy):
    run_in(copy, "nbdev-export")
    written, committed = (
        {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in (root / "ps_nb").rglob("*.py")}
        for root in (copy, ROOT))
    assert len(committed) == len(LIBRARY) + len(CHAPTERS) + 2, "a module a notebook, a face a chapter, __init__ and _modidx"
    stale = sorted(name for name in written.keys() | committed.keys() if written.get(name) != committed.get(name))
    assert not stale, f"run nbdev-export: {stale} differ"


def test_the_notebooks_are_clean(copy):
    run_in(copy, "nbdev-clean")
    paths = [path.relative_to(ROOT) for path in (*LIBRARY, *PAPERS, *EXPERIMENTS)]
    unclean = [str(path) for path in paths if (copy / path).read_bytes() != (ROOT / path).read_bytes()]
    assert not unclean, f"run nbdev-clean: {unclean} change"


def imported_modules(path):
    "Top-level names that a module imports, and the modules of ps_nb that it imports, dotted, wherever in the file they stand."
    outside, inside = set(), set()
    package = ["ps_nb", *path.relative_to(ROOT / "ps_nb").parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
            inside |= {alias.name.removeprefix("ps_nb.") for alias in node.names if alias.name.startswith("ps_nb.")}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            full = ".".join([*above, *([node.module] if node.module else [])])
            outside.add(full.split(".")[0])
            if full.startswith("ps_nb."):
                inside.add(full.removeprefix("ps_nb."))
            elif full == "ps_nb":
                inside |= {alias.name for alias in node.names}
    return outside - {"ps_nb"}, inside


def test_every_library_notebook_is_found():
    folders = [path for path in (ROOT / "nbs").iterdir() if re.match(r"\d\d_", path.name)]
    assert [int(path.name[:2]) for path in sorted(folders)] == list(range(15))  # ground, thirteen chapters, the command
    assert len(LIBRARY) == len([path for path in (ROOT / "nbs").rglob("*.ipynb") if path.parent.parent == ROOT / "nbs"
                                and path.parent.name not in ("papers", ".ipynb_checkpoints")]) == 102
    assert len(CHAPTERS) == 13
    for folder in folders:
        numbers = sorted(int(path.stem[:2]) for path in folder.glob("*.ipynb"))
        assert numbers == list(range(1, len(numbers) + 1)), f"{folder.name} is not numbered from 01"


def test_modules_import_only_lower_chapters_and_lower_numbers():
    number = {directive(path, "default_exp"): (int(path.parent.name[:2]), int(path.stem[:2])) for path in LIBRARY}
    upward = []
    for name, own in number.items():
        _, inside = imported_modules(ROOT / "ps_nb" / f"{name.replace('.', '/')}.py")
        assert not inside - number.keys(), f"{name} imports {inside - number.keys()}: exported code imports modules, not faces"
        upward += [f"{name} {own} imports {other} {number[other]}" for other in inside if number[other] >= own]
    assert not upward


def test_chapters_have_no_circle():
    chapter = lambda module: module.split(".")[0]  # noqa: E731
    arrows = {chapter(directive(path, "default_exp")): set() for path in LIBRARY}
    for path in LIBRARY:
        name = directive(path, "default_exp")
        _, inside = imported_modules(ROOT / "ps_nb" / f"{name.replace('.', '/')}.py")
        arrows[chapter(name)] |= {chapter(other) for other in inside} - {chapter(name)}
    assert arrows["losses"] | arrows["clustering"] | arrows["data"] <= {"core", "devices"}, "the ground of the chapters"
    while arrows:
        free = [name for name, others in arrows.items() if not others & arrows.keys()]
        assert free, f"a circle among {sorted(arrows)}"
        for name in free:
            del arrows[name]


def test_a_public_name_means_one_thing():
    homes = {}
    for path in sorted((ROOT / "ps_nb").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT / "ps_nb")))
    repeated = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert not repeated, f"two functions or classes of one name, say in the name how they differ: {repeated}"


def test_exported_imports_are_relative():
    absolute = [f"{path.relative_to(ROOT)}: {node.module}" for path in (ROOT / "ps_nb").rglob("*.py")
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom) and not node.level and node.module.startswith("ps_nb.")]
    assert not absolute, f"parenthesised imports of notebooks stay absolute, write lines instead: {absolute}"


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.name)
def test_a_face_offers_what_its_chapter_defines(chapter):
    face = importlib.import_module(f"ps_nb.{chapter.name}")
    assert face.__doc__ and face.__all__ == sorted(set(face.__all__))
    for name in face.__all__:
        value = getattr(face, name)
        if hasattr(value, "__module__") and isinstance(value.__module__, str) and hasattr(value, "__name__"):
            assert value.__module__.startswith(f"ps_nb.{chapter.name}."), f"{name} is of {value.__module__}"


def test_an_installed_wheel_imports_every_module(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "ps_nb", source / "ps_nb", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    modules = sorted(directive(path, "default_exp") for path in LIBRARY)
    program = "import importlib, sys, ps_nb; assert ps_nb.__file__.startswith(sys.argv[1]), ps_nb.__file__\n" \
              "for name in sys.argv[2:]: importlib.import_module('ps_nb.' + name)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "site"), *modules], cwd=tmp_path, capture_output=True,
                          text=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr[-2000:]


IMPORT_NAMES = {"scikit-learn": "sklearn", "pillow": "PIL", "opencv-python-headless": "cv2", "faiss-cpu": "faiss",
                "finch-clust": "finch"}


def test_exported_code_imports_what_the_package_requires():
    declared = [re.split(r"[<>=]", line)[0] for key in ("requirements", "index_requirements", "cluster_requirements",
                                                                       "comparison_requirements", "onnx_requirements",
                                                                       "web_requirements")
                for line in requirements(key)]  # fmt: skip
    allowed = {IMPORT_NAMES.get(name, name) for name in declared} | set(sys.stdlib_module_names) | {"triton"}  # of torch for GPUs
    foreign = {path.name: names for path in (ROOT / "ps_nb").rglob("*.py") if (names := imported_modules(path)[0] - allowed)}
    assert not foreign


# ---------------------------------------------------------------- library and paper notebooks


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_library_notebook_is_one_module_in_short_cells(path):
    *chapter, name = directive(path, "default_exp").split(".")
    assert path.stem[3:] == name and (not chapter or path.parent.name[3:] == chapter[0])
    assert code_cells(path)[0].source.startswith("#| default_exp"), "the first code cell names the module"
    lengths = {source.splitlines()[0]: len(source.splitlines()) for source in exported_sources(path)}
    long = {name: length for name, length in lengths.items() if length > 50}
    assert not long, f"exported cells over 50 lines: {long}"


@pytest.mark.parametrize("path", [*LIBRARY, *PAPERS], ids=name_of)
def test_a_notebook_can_be_read_without_being_run(path):
    cells = nbformat.read(path, as_version=4).cells
    opening = cells[0].source.splitlines()
    prose = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert not [line for line in prose if re.match(r"#+ #", line)], "a heading written '# ## '"
    assert cells[0].cell_type == "markdown" and opening[0].startswith("# "), "opens with a title"
    assert any(line.startswith("> ") for line in opening), "the title is followed by a line that says what it is for"
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs, "committed without outputs"
    assert not [output.ename for output in outputs if output.output_type == "error"]
    for output in outputs:
        data = output.get("data", {})
        text = "".join([output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/"))])
        assert not PATHS.findall(text), "a path of one machine"
        assert not re.search(r"Wall time|CPU times|\d(?:it/s|s/it)", text), "a timing"
        assert "<function " not in text, "a function where words were meant"
        assert output.get("name") != "stderr", "warnings among the outputs"
        for kind, value in data.items():
            if kind.startswith("image/"):
                size = len(value.encode()) if kind == "image/svg+xml" else len(base64.b64decode(value))
                assert size <= 100_000, f"a picture of {size // 1000} kB"


def test_the_pages_of_contents_are_those_of_the_notebooks():
    stale = [str(path.relative_to(ROOT)) for path, text in contents().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run make contents: {stale} differ"


def test_links_between_files_and_to_headings_lead_somewhere():
    broken, named = [], {}  # by page, the ids of its headings as Jupyter makes them, and those that it gives itself
    pages = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "nbs/EQUATIONS.md", "results/README.md")
    listed = [*(ROOT / name for name in pages),
              *(ROOT / "nbs").rglob("README.md")]
    texts = {path: path.read_text(encoding="utf-8") for path in listed}
    for path in [*LIBRARY, *PAPERS, *EXPERIMENTS]:
        cells = nbformat.read(path, as_version=4).cells
        texts[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for path, text in texts.items():
        headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
        named[path] = {heading.replace(" ", "-") for heading in headings} | set(re.findall(r'<a id="([^"]+)"', text))
    link = r"\]\((?!https?:|mailto:|attachment:)([^)\s#]*)(?:#((?:[^\s()]|\([^\s()]*\))+))?\)"  # Eq. (1) has parentheses too
    for path, text in texts.items():
        for target, heading in re.findall(link, text):
            page = (path.parent / target).resolve() if target else path
            if "." in target and not page.exists() or heading and unquote(heading) not in named[page]:
                broken.append(f"{path.relative_to(ROOT)}: {target}#{heading}")
    assert not broken


# ---------------------------------------------------------------- experiment notebooks


def parameters_of(cell):
    "Names and values of a parameters cell that has only `name = literal  # help` lines."
    lines = [line for line in cell.source.splitlines() if line.strip()]
    nodes = ast.parse(cell.source).body
    assert len(lines) == len(nodes), "one parameter a line and nothing else"
    found = {}
    for line, node in zip(lines, nodes):
        assert isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name), line
        value = ast.literal_eval(node.value)
        assert isinstance(value, str | int | float | bool), f"{line}: a flat literal is wanted"
        assert not (isinstance(value, str) and ("=" in value or "/" in value)), f"{line}: no = and no path in a text"
        assert re.search(r"  # \S", line[node.value.end_col_offset :]), f"{line}: a comment explains it"
        found[node.targets[0].id] = value
    return found


def calls(cells, function):
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [node for node in nodes if getattr(node.func, "id", None) == function]


OWN_ENDS = {"beyond/growth", "beyond/throughput"}  # end with the cell that writes their result


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_an_experiment_is_parameters_calls_and_a_result(path):
    book = nbformat.read(path, as_version=4)
    cells = code_cells(path)
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")
    assert book.metadata.kernelspec.name == "python3"
    tagged = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.id for cell in tagged] == [cells[0].id], "the first code cell, and no other, is tagged parameters"
    *computing, shown = cells
    assert not any(cell.outputs or cell.execution_count for cell in computing), "committed without outputs"
    if name_of(path) not in OWN_ENDS:
        assert shown.source == f'committed("{path.parent.name}", "{path.stem}")', "the last cell shows what is committed"
        assert refreshed(path) == path.read_text(encoding="utf-8"), "run make contents: results have changed"
        cells = computing
    parameters = parameters_of(cells[0])
    assert parameters["profile"] == "smoke"
    (check,) = calls(cells[1:2], "check_parameters")
    assert {"profile", "seeds", *(keyword.arg for keyword in check.keywords)} == set(parameters), "every parameter is checked"
    (result,) = calls(cells[-1:], "write_result")
    assert [argument.value for argument in result.args[:2]] == [path.parent.name, path.stem]
    published = read_json(ROOT / "results" / "published" / f"{path.parent.name}.json")
    assert path.stem in [item["id"] for item in published["artefacts"]]
    functions = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef)]
    assert not [node.name for node in functions if len(node.body) > 5 or node.end_lineno - node.lineno > 12]


# ---------------------------------------------------------------- the index of the papers

INDEX = papers_index()
NUMBERED = {  # equations, algorithms, figures and tables that each paper prints with a number
    "e2e": (0, 0, 7, 3), "ctxg": (4, 0, 6, 5), "cgps": (6, 1, 5, 6), "rsiam": (4, 1, 4, 4), "cucps": (7, 0, 8, 3),
}
def sections(path):
    "By heading, the prose and the code cells up to the next heading."
    found, heading = {}, None
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            found[heading][1].append(cell)
            continue
        for line in cell.source.splitlines():
            if re.match(r"#+ ", line):
                heading = line.split(" ", 1)[1]
                found.setdefault(heading, ([], []))
            found[heading][0].append(line)
    return {heading: ("\n".join(prose), cells) for heading, (prose, cells) in found.items()}


def named_object(dotted):
    "The function, class or method `dotted` of ps_nb."
    module = "ps_nb." + ".".join(dotted.split(".")[:2])
    value = importlib.import_module(module)
    for name in dotted.split(".")[2:]:
        value = getattr(value, name)
    return value


def says(docstring, entry):
    "Whether a docstring names the equation, algorithm or section of an entry of the index."
    if entry["kind"] == "algorithm" and entry["number"].isdigit():
        return f"Algorithm {entry['number']}" in docstring
    number = entry["number"].removeprefix("OIM ")
    if not number.isdigit():
        return "§" + (entry["section"].split(" ")[0]) in docstring
    numbers = [int(each) for listed in re.findall(r"Eq\. ([\d, and-]*\d)", docstring)
               for first, last in re.findall(r"(\d+)(?:-(\d+))?", listed) for each in range(int(first), int(last or first) + 1)]
    return int(number) in numbers


def test_the_index_has_every_number_of_the_papers():
    assert list(INDEX) == list(NUMBERED)
    for key, counts in NUMBERED.items():
        for kind, count in zip(("equation", "algorithm", "figure", "table"), counts):
            numbers = [entry["number"] for entry in INDEX[key]["entries"] if entry["kind"] == kind]
            assert [each for each in numbers if each.isdigit()] == [str(each + 1) for each in range(count)], (key, kind)
            assert len(set(numbers)) == len(numbers)
        listed = {name for entry in INDEX[key]["entries"] if entry["kind"] in ("figure", "table")
                  for name in entry_experiments(key, entry)}
        assert listed == {f"{key}/{path.stem}" for path in (ROOT / "nbs" / "experiments" / key).glob("*.ipynb")}


@pytest.mark.parametrize("key", INDEX)
def test_the_index_leads_to_equations_functions_and_experiments(key):
    paths = {entry["library"] for entry in INDEX[key]["entries"] if "library" in entry}
    library, silent = {path: sections(ROOT / "nbs" / path) for path in paths}, set()
    for entry in INDEX[key]["entries"]:
        label = f"{key} {entry['kind']} {entry['number']}"
        assert entry["functions"], label
        for name in entry["functions"]:
            docstring = named_object(name).__doc__
            assert docstring, f"{label}: {name} has no docstring"
            if entry["kind"] in ("equation", "algorithm") and not says(docstring, entry):
                silent.add(f"{name}: {entry['number']}")
        if "library" in entry:
            prose, _ = library[entry["library"]][entry["heading"]]
            if entry["kind"] == "equation":
                assert rf"\tag{{{entry['number']}}}" in prose, f"{label} is not displayed in {entry['library']}"
        for experiment in entry_experiments(key, entry):
            assert (ROOT / "nbs" / "experiments" / f"{experiment}.ipynb").exists(), f"{label}: {experiment}"
    assert not silent, "a docstring says which equation its function computes"


@pytest.mark.parametrize("key", INDEX)
def test_a_page_goes_through_its_paper(key):
    path, paper = ROOT / "nbs" / "papers" / f"{key}.ipynb", INDEX[key]
    page = sections(path)
    assert [heading for heading in page if heading in paper["sections"]] == paper["sections"], "the paper's table of contents"
    for entry in paper["entries"]:
        prose, cells = page[entry["section"]]
        code, label = "\n".join(cell.source for cell in cells), f"{key} {entry['kind']} {entry['number']}"
        if entry["kind"] == "equation":
            assert rf"\tag{{{entry['number']}}}" in prose, f"{label} is not displayed"
        if entry["kind"] == "algorithm":
            assert "listing(" in code, f"{label} is not listed"
        if entry["kind"] in ("equation", "algorithm"):
            assert entry["library"] in prose, f"{label} is not linked to the library"
            assert entry["functions"][0].split(".")[2] in code + prose, f"{label}: its function is not named"
        if entry["kind"] in ("figure", "table"):
            for experiment in entry_experiments(key, entry):
                assert f'reported("{key}", "{experiment.split("/")[1]}")' in code, f"{label}: {experiment} is not shown"
        if entry["kind"] == "figure":
            drawn = any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
            assert drawn or "![" in prose, f"{label} is neither drawn nor shown"
    assert refreshed(path) == path.read_text(encoding="utf-8"), "run make contents: results have changed"


# ---------------------------------------------------------------- every file


def prose(path):
    "Every text of a notebook for readers: Markdown without code, docstrings and comments."
    for cell in nbformat.read(path, as_version=4).cells:
        texts = [cell.source]
        if cell.cell_type == "code":
            places = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            texts = [*filter(None, map(ast.get_docstring, places)), *re.findall(r"^\s*# .*|  # .*", cell.source, re.M)]
        yield from (re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S) for text in texts)


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "nbs").iterdir() if any(path.rglob("*.ipynb"))))
def test_prose_keeps_to_the_glossary(folder):
    rows = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Words")[1].split("\n## ")[0].splitlines()
    hidden = [word for row in rows if row.startswith("|") for word in re.findall(r"`(\w+)`", row.rsplit("|", 2)[-2])]
    assert {"processor", "somebody", "nobody"} <= set(hidden)
    pattern = re.compile(rf"\b(?:{'|'.join(hidden)})\b", re.I)
    notebooks = sorted((ROOT / "nbs" / folder).rglob("*.ipynb"))
    found = {f"{name_of(path)}: {match[0]}" for path in notebooks for text in prose(path) for match in pattern.finditer(text)}
    assert notebooks and not found, f"say who or what (CONTRIBUTING, Words): {sorted(found)}"


def test_files_speak_of_the_project_alone():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    words = ["/" + "work/", "../" + "shared", "this " + "session", ".lib" + "rary"]
    found = []
    for name in listed.stdout.split("\0")[:-1]:
        path = ROOT / name
        if not path.is_file() or name.startswith(".ci/"):  # the gate may look for data beside the checkout
            continue
        assert path.stat().st_size <= 2_000_000, f"{name} is larger than 2 MB"
        content = path.read_bytes()
        found += [f"{name}: {word}" for word in words if word.encode() in content]
    assert not found
