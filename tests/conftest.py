"""Tests share two cores: each worker computes on one, and nothing is left in the checkout or on the disk."""

import multiprocessing
import os
import tempfile

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def temporary_files(monkeypatch, tmp_path_factory):
    "What a test and the processes that it starts put into the system's temporary folder goes with the test."
    tmp_path_factory.getbasetemp()  # which is for all tests, and made where temporary files go when it is first asked for
    with tempfile.TemporaryDirectory(prefix="ps-nb-", ignore_cleanup_errors=True) as folder:  # short: sockets lie there
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def fresh():
    "Makes processes that are copies of one that has imported the library and what notebooks use; it outlives the tests' folders."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ps_nb.cli", "ps_nb.reproduction", "ps_nb.figures", "nbdev.test", "hypothesis",
                                    "matplotlib.pyplot", "seaborn"])
    context.Process(target=len, args=("",)).start()  # which starts that one, outside of any test's folder
    return context
