"""Every library notebook runs from top to bottom in a fresh process; the linter passes."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "nbs").glob("[0-9]*/[0-9]*.ipynb")) + sorted((ROOT / "nbs" / "papers").glob("*.ipynb"))
PROGRAMS = Path(sys.executable).parent


def run_cells(notebook: Path, environment: dict, messages: Path) -> None:
    "Run all cells of `notebook` as `nbdev-test` does; what goes wrong goes to `messages`, and the process ends with 1."
    os.environ |= environment
    tempfile.tempdir = None  # that of the environment
    with open(messages, "w") as file:
        os.dup2(file.fileno(), 2)
        from nbdev.config import get_config
        from nbdev.test import test_nb

        sys.__stderr__ = sys.stderr = file
        settings = get_config()
        passed, _ = test_nb(notebook, skip_flags=settings.tst_flags.split(), cell_timeout=settings.cell_timeout, basepath=ROOT)
    sys.exit(not passed)


@pytest.mark.parametrize("notebook", LIBRARY, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_library_notebook(notebook, tmp_path, fresh):
    environment = {"PS_NB_RUNS": str(tmp_path / "runs"), "PS_NB_RESULTS": str(tmp_path / "results"), "PYTHONPATH": str(ROOT),
                   "TMPDIR": os.environ["TMPDIR"]}
    interpreted = "TRITON_INTERPRET" in notebook.read_text(encoding="utf-8")  # which has to be set before Triton is imported
    context = multiprocessing.get_context("spawn") if interpreted else fresh
    process = context.Process(target=run_cells, args=(notebook, environment, tmp_path / "messages"))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "messages").read_text()[-4000:]


def test_ruff():
    command = [PROGRAMS / "ruff", "check", "nbs", "tests", "docs", "setup.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
