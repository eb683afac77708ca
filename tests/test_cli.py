"""The command: every mistake is one line and exit status 1; the main paths work on a rendered twin."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ps_nb.cli import main
from ps_nb.core import write_json
from ps_nb.data.cuhk_sysu import read_cuhk_sysu
from ps_nb.twin.render import render_twin


def call(monkeypatch, capsys, *arguments):
    "Exit status, standard output and standard error of `ps-nb arguments`."
    monkeypatch.setattr(sys, "argv", ["ps-nb", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    return ended.value.code or 0, output.out, output.err


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    render_twin("cuhk-twin", folder / "twin", "smoke", 0)
    return folder


@pytest.fixture
def ps_nb(work, monkeypatch, capsys):
    monkeypatch.setenv("PS_NB_RUNS", str(work / "runs"))
    monkeypatch.chdir(work)
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


def test_from_training_to_a_search(ps_nb, work):
    status, out, _ = ps_nb("train", "twin", "--format", "cuhk-sysu", "--profile", "smoke", "--device", "cpu")
    assert status == 0
    run = out.split("trained searcher: ")[1].strip()
    status, out, _ = ps_nb("detect", run, "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "found.npz")
    assert status == 0 and (work / "found.npz").exists()
    status, out, _ = ps_nb("evaluate", "found.npz", "--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out",
                           "metrics.json", "--score-weighted")
    metrics = json.loads((work / "metrics.json").read_text())
    assert status == 0 and 0 <= metrics["search"]["map"] <= 1 and metrics["settings"]["similarity"] == "weighted"
    assert {"ap", "recall"} <= set(metrics["detection"]) and {"map", "top1", "top5", "top10", "queries"} <= set(metrics["search"])
    images = work / "twin" / "Image" / "SSM"
    status, out, _ = ps_nb("search", "index", run, images, "--out", "index")
    assert status == 0 and (work / "index").is_dir()
    image = sorted(images.iterdir())[0]
    status, out, _ = ps_nb("search", "query", run, "index", image, "--box", "10,20,60,110", "--out", "answer")
    assert status == 0 and (work / "answer" / "search.png").exists()
    status, _, error = ps_nb("search", "query", run, "index", image, "--box", "10,20,5,110", "--out", "answer")
    assert status == 1 and error.startswith("ps-nb: box") and error.count("\n") == 1


def test_a_search_by_the_company_people_keep(ps_nb, work):
    status, out, _ = ps_nb("train", "twin", "--format", "cuhk-sysu", "--profile", "smoke", "--device", "cpu", "--system", "ctxg")
    run, graph = (line.split(": ")[1] for line in out.splitlines() if line.startswith(("trained searcher", "its context graph")))
    assert status == 0 and Path(graph).parent == Path(run)
    arguments = ("--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5")
    assert ps_nb("detect", run, "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "company.npz")[0] == 0
    assert ps_nb("evaluate", "company.npz", *arguments, "--out", "plain.json")[0] == 0
    assert ps_nb("evaluate", "company.npz", *arguments, "--out", "graph.json", "--graph", graph)[0] == 0
    plain, by_graph = (json.loads((work / f"{name}.json").read_text())["search"] for name in ("plain", "graph"))
    status, _, error = ps_nb("evaluate", "company.npz", *arguments, "--out", "no.json", "--graph", graph, "--score-weighted")
    assert status == 1 and "weighted" in error and error.count("\n") == 1
    assert plain["recall"] == by_graph["recall"] and plain["queries"] == by_graph["queries"]
    images = work / "twin" / "Image" / "SSM"
    assert ps_nb("search", "index", run, images, "--out", "company")[0] == 0
    image = sorted(images.iterdir())[0]
    status, _, _ = ps_nb("search", "query", run, "company", image, "--box", "-5,20,60,110", "--out", "joined", "--graph", graph)
    found = json.loads((work / "joined" / "search.json").read_text())["people"]
    assert status == 0 and (work / "joined" / "context.png").exists() == bool(found)
    status, _, error = ps_nb("train", "twin", "--format", "cuhk-sysu", "--system", "pairs")
    assert status == 1 and "choose one of oim, ctxg" in error and error.count("\n") == 1


def test_quickstart_leaves_its_files(ps_nb, work):
    status, out, _ = ps_nb("quickstart", "--profile", "smoke", "--device", "cpu", "--out", "quick")
    assert status == 0 and (work / "quick" / "quickstart.png").stat().st_size > 1000
    result = json.loads((work / "quick" / "quickstart.json").read_text())
    assert [row["boxes"] for row in result["rows"]] == ["true", "true", "true", "detected"]
    assert str(Path("quick/quickstart.json")) in out


def test_detections_of_another_model(ps_nb, work):
    data = read_cuhk_sysu(work / "twin")
    names = [scene.name for scene in data.gallery]
    rng = np.random.default_rng(0)
    perfect = rng.normal(size=(1 + max(int(scene.ids.max(initial=-1)) for scene in data.gallery), 16))
    ids = np.concatenate([scene.ids for scene in data.gallery])
    features = np.where(ids[:, None] >= 0, perfect[ids], rng.normal(size=(len(ids), 16)))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    queries = perfect[[query.person for query in data.protocol("TestG5").queries]]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    arrays = dict(image=np.repeat(names, [len(scene) for scene in data.gallery]), scores=np.ones(len(ids)), features=features,
                  boxes=np.concatenate([scene.boxes for scene in data.gallery]), query_features=queries)
    np.savez(work / "perfect.npz", **arrays)
    arguments = ("--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "perfect.json")
    assert ps_nb("evaluate", "perfect.npz", *arguments)[0] == 0
    metrics = json.loads((work / "perfect.json").read_text())
    assert metrics["detection"]["recall"] == 1 and metrics["search"]["map"] == pytest.approx(1)
    np.savez(work / "narrow.npz", **arrays | {"query_features": queries[:, :3]})
    np.savez(work / "lacking.npz", **{name: value for name, value in arrays.items() if name != "scores"})
    np.savez(work / "nan.npz", **arrays | {"features": features * np.nan})
    (work / "broken.npz").write_bytes((work / "perfect.npz").read_bytes()[:200])
    for name, part in (("narrow", "feature"), ("lacking", "scores"), ("nan", "NaN"), ("broken", "broken.npz"), ("no", "no.npz")):
        status, _, error = ps_nb("evaluate", f"{name}.npz", *arguments)
        assert status == 1 and error.count("\n") == 1 and part in error, error


@pytest.mark.parametrize("arguments, part", [
    (["data", "check", "twin", "--format", "market"], "market"),
    (["data", "check", "nowhere", "--format", "prw"], "nowhere"),
    (["data", "check", "twin", "--format", "prw"], "cuhk-sysu"),
    (["data", "render", "cuhk-twin", "there", "--profile", "huge"], "huge"),
    (["data", "render", "market-twin", "there"], "market-twin"),
    (["train", "twin", "--format", "cuhk-sysu", "--profile", "tiny"], "tiny"),
    (["train", "twin", "--format", "cuhk-sysu", "--profile", "smoke", "--device", "abacus"], "abacus"),
    (["detect", "nowhere", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "x.npz"], "nowhere"),
    (["evaluate", "x.npz", "--data", "twin", "--format", "cuhk-sysu", "--out", "x.json", "--preset", "best"], "best"),
    (["quickstart", "--profile", "paper"], "PS_NB_CUHK_SYSU"),
    (["reproduce", "e3e"], "e3e"),
    (["reproduce", "e2e", "--set", "seeds"], "seeds"),
    (["reproduce", "e2e", "--set", "seed=1"], "seed"),
    (["search", "index", "nowhere", "twin", "--out", "index2"], "nowhere"),
])
def test_mistakes_are_one_line(ps_nb, arguments, part):
    status, _, error = ps_nb(*arguments)
    assert status == 1 and error.count("\n") == 1 and error.startswith("ps-nb: ") and part in error, error


def test_a_full_disk_leaves_no_half_result(tmp_path, monkeypatch):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    from ps_nb.core import UserError
    with pytest.raises(UserError, match="No space left"):
        write_json(tmp_path / "metrics.json", {"map": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_prints_help():
    done = subprocess.run([Path(sys.executable).parent / "ps-nb", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "quickstart" in done.stdout


def test_threads_are_those_of_the_cores_that_may_be_used(monkeypatch):
    import torch

    from ps_nb import devices

    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(devices, "available_cores", lambda: 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        devices.use_available_cores()
        assert torch.get_num_threads() == before  # said otherwise
        monkeypatch.delenv("OMP_NUM_THREADS")
        devices.use_available_cores()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
