"""Every library notebook runs from top to bottom in a fresh process; the linter passes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "nbs").glob("[0-9]*/[0-9]*.ipynb")) + sorted((ROOT / "nbs" / "papers").glob("*.ipynb"))
PROGRAMS = Path(sys.executable).parent


@pytest.mark.parametrize("notebook", LIBRARY, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_library_notebook(notebook, tmp_path):
    environment = os.environ | {"PS_NB_RUNS": str(tmp_path / "runs"), "PS_NB_RESULTS": str(tmp_path / "results"),
                                "PYTHONPATH": str(ROOT)}
    command = [PROGRAMS / "nbdev-test", notebook, "--n-workers", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_ruff():
    done = subprocess.run([PROGRAMS / "ruff", "check", "nbs", "tests", "setup.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
