"""Runs: what the recipes of the other tests leave out, but those of `small` have."""

import inspect
import os
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ps_nb import systems
from ps_nb.core import UserError, read_json
from ps_nb.data.scenes import Scene, SearchSet
from ps_nb.detector.settings import Searcher
from ps_nb.evaluation.ranking import evaluate
from ps_nb.systems import recipes, runs
from ps_nb.systems.recipes import OBJECTIVES, cgps, ctxg, cucps, deep, idnet, joint, oim, rsiam, seqnet
from ps_nb.systems.runs import (
    NETWORKS,
    find_people,
    learns_identities,
    load_run,
    new_network,
    new_objective,
    search_set,
    searched,
    trained,
)
from ps_nb.training.crops import CropTraining
from ps_nb.training.loop import Objective
from ps_nb.twin.render import render_twin

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def test_matching_starts_on_crops(folder, monkeypatch):
    monkeypatch.setenv("PS_NB_RUNS", str(folder))
    recipe = oim("smoke")
    crops = CropTraining(64, 32, epochs=1, batch_size=16, learning_rate=0.05, milestones=())
    schedule = replace(recipe.schedule, epochs=1)
    recipe = replace(recipe, schedule=schedule, objective=replace(recipe.objective, crops=crops, fill=True))
    assert recipe.detector.own_stage
    data = search_set("cuhk-sysu", "smoke")
    run = trained(recipe, data, "smoke", device="cpu")
    start = trained(idnet(recipe), data, "smoke", device="cpu")
    assert set(run.facts["log"][0]) >= {"region_score", "region_box", "matching"}
    assert set(start.facts["log"][0]) == {"epoch", "identity", "right"} and len(list(folder.glob("idnet-*/run.json"))) == 1
    began = start.searcher.backbone.stage.layer3[0].conv1.weight
    for stage in (run.searcher.backbone.stage, run.searcher.backbone.scene_stage):  # both start from the crops' and learn on
        learned = stage.layer3[0].conv1.weight
        assert not torch.equal(learned, began) and (learned - began).norm() < 0.2 * began.norm()
    protocol = sorted(data.protocols)[0]
    again = load_run(run.folder, device="cpu")
    assert again.recipe == recipe
    found, once_more = (find_people(each.searcher, recipe, data, protocol) for each in (run, again))
    assert (found.features == once_more.features).all() and (found.boxes == once_more.boxes).all()


def test_a_further_system_is_a_record_an_objective_and_a_recipe(folder, monkeypatch):
    monkeypatch.setenv("PS_NB_RUNS", str(folder))
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "contributed"}
    monkeypatch.setitem(sys.modules, "contributed", types.ModuleType("contributed"))
    monkeypatch.setattr(recipes, "OBJECTIVES", dict(recipes.OBJECTIVES))
    for module in (runs, systems):
        monkeypatch.setattr(module, "OBJECTIVES", recipes.OBJECTIVES)
    exec(compile(program, "CONTRIBUTING.md", "exec"), names)
    run, data, scores = names["run"], names["data"], names["scores"]
    assert {"every_box", "region_box"} <= set(run.facts["log"][0]) and 0 <= scores["map"] <= 1
    assert not learns_identities(run.recipe) and load_run(run.folder, "cpu").recipe == run.recipe == names["every_box"]("smoke")

    # The run in a folder that cannot be written to: no lock is taken, nothing is written, and it can be evaluated.
    (run.folder / "checkpoint.pt").touch()  # which a kill left
    (run.folder / ".lock").unlink()
    (run.folder / ".lock").mkdir()
    there = {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    protocol = min({*data.protocols} - {names["usual_protocol"](data)})  # whose detections are not kept yet
    again = trained(run.recipe, data, "smoke", device="cpu")
    assert evaluate(searched(again, data, protocol), data, protocol)["search"]["map"] >= 0
    assert {path.name: path.stat().st_mtime_ns for path in run.folder.iterdir()} == there



def test_every_network_is_a_searcher_and_every_objective_an_objective():
    data = SearchSet("one", [Scene("a", "a.jpg", 9, 9, [[0, 0, 4, 8]], [0])], [])

    used = set()
    for recipe in (each("smoke") for each in (oim, ctxg, cgps, rsiam, cucps, joint, deep, seqnet)):
        network, objective = new_network(recipe.detector, 3), new_objective(recipe, data)
        assert all(parameters_of(network, name) == parameters_of(Searcher, name) for name in ("forward", "detect", "embed"))
        assert {Objective, torch.nn.Module} <= set(type(objective).__mro__)
        for name in ("begin", "extract", "begin_epoch", "forward", "update", "pseudo_labels"):
            assert parameters_of(objective, name) == parameters_of(Objective, name), (recipe.name, name)
        used.add(type(recipe.objective))
    assert used == set(OBJECTIVES) and len(NETWORKS) == 5


def parameters_of(owner, name):
    "The names of a method's parameters, without `self`."
    return [each for each in inspect.signature(getattr(owner, name)).parameters if each != "self"]


# in float32: bf16 rounds the statistics of two halves of a batch otherwise than those of the whole
COMMAND = ("import ps_nb.training.loop as loop; loop.choose_precision = lambda device: 'no';"
           " from ps_nb.cli import main; main()")


@pytest.mark.parametrize("system", ["rsiam", "oim"])  # without and with crops that one process learns from alone
def test_the_processes_of_a_torchrun_make_one_run(tmp_path, system):
    render_twin("cuhk-twin", tmp_path / "data", "smoke", 0)
    words = f"train {tmp_path / 'data'} --format cuhk-sysu --profile smoke --system {system} --device cpu".split()
    words += ["--set", "schedule.batch_size=6", "--set", "schedule.epochs=1"]  # two steps: later ones drift apart by rounding
    together = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "--no-python", sys.executable]
    logs = []
    for name, launcher in (("one", []), ("two", together)):
        environment = os.environ | {"PS_NB_RUNS": str(tmp_path / name), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launcher, "-c", COMMAND, *words]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert ended.stdout.count(f"training {system} on") == 1
        (run,) = (tmp_path / name).glob(f"{system}-*/run.json")
        assert not list(run.parent.glob("checkpoint*"))
        logs.append(read_json(run)["log"][0])
    for name in logs[0].keys() - {"similarity_consistency"}:  # which compares the people of one process
        assert logs[1][name] == pytest.approx(logs[0][name], rel=0.01), name


@pytest.mark.parametrize("content", ["[]", "{}", "null", "3", '"run"', '{"recipe": null}', '{"recipe": null, "identities": 3}',
                                     '{"recipe": [], "identities": 3}', "[" * 100_000, "9" * 5000, ""])
def test_a_damaged_run_json_is_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="run.json"):
        load_run(tmp_path, "cpu")
