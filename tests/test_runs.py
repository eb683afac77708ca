"""Runs: what the recipes of the other tests leave out, but those of `small` have."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ps_nb.core import UserError, read_json
from ps_nb.systems.recipes import idnet, oim
from ps_nb.systems.runs import find_people, load_run, search_set, trained
from ps_nb.training.crops import CropTraining
from ps_nb.twin.render import render_twin


def test_matching_starts_on_crops(tmp_path, monkeypatch):
    monkeypatch.setenv("PS_NB_RUNS", str(tmp_path))
    recipe = oim("smoke")
    crops = CropTraining(64, 32, epochs=1, batch_size=16, learning_rate=0.05, drop_epochs=(), queue_size=8)
    schedule = replace(recipe.schedule, epochs=1)
    recipe = replace(recipe, schedule=schedule, objective=replace(recipe.objective, crops=crops, fill=True))
    assert recipe.detector.own_stage
    data = search_set("cuhk-sysu", "smoke")
    run = trained(recipe, data, "smoke", device="cpu")
    start = trained(idnet(recipe), data, "smoke", device="cpu")
    assert set(run.facts["log"][0]) >= {"region_score", "region_box", "matching"}
    assert set(start.facts["log"][0]) == {"epoch", "identity", "right"} and len(list(tmp_path.glob("idnet-*/run.json"))) == 1
    began = start.searcher.backbone.stage.layer3[0].conv1.weight
    for stage in (run.searcher.backbone.stage, run.searcher.backbone.scene_stage):  # both start from the crops' and learn on
        learned = stage.layer3[0].conv1.weight
        assert not torch.equal(learned, began) and (learned - began).norm() < 0.2 * began.norm()
    protocol = sorted(data.protocols)[0]
    again = load_run(run.folder, device="cpu")
    assert again.recipe == recipe
    found, once_more = (find_people(each.searcher, recipe, data, protocol) for each in (run, again))
    assert (found.features == once_more.features).all() and (found.boxes == once_more.boxes).all()


COMMAND = "from ps_nb.cli import main; main()"


@pytest.mark.parametrize("system", ["rsiam", "oim"])  # without and with crops that one process learns from alone
def test_the_processes_of_a_torchrun_make_one_run(tmp_path, system):
    render_twin("cuhk-twin", tmp_path / "data", "smoke", 0)
    words = f"train {tmp_path / 'data'} --format cuhk-sysu --profile smoke --system {system} --device cpu".split()
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
        logs.append(read_json(run)["log"][0])  # the first epoch, before small differences add up
    for name in logs[0].keys() - {"similarity_consistency"}:  # which compares the people of one process
        assert logs[1][name] == pytest.approx(logs[0][name], rel=0.01), name


@pytest.mark.parametrize("content", ["[]", "{}", "null", "3", '"run"', '{"recipe": null}', '{"recipe": null, "identities": 3}',
                                     '{"recipe": [], "identities": 3}', "[" * 100_000, "9" * 5000, ""])
def test_a_damaged_run_json_is_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="run.json"):
        load_run(tmp_path, "cpu")
