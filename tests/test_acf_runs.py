"ACF through the run folder: trained once, found again, another run for other people or another seed, nobody in the gallery."
from dataclasses import replace

import numpy as np
import pytest

from ps_nb.core import UserError
from ps_nb.data.scenes import Scene
from ps_nb.reproduction.results import run_origins
from ps_nb.systems import acf
from ps_nb.systems.acf import acf_detections, acf_training, trained_acf
from ps_nb.twin.render import render_twin


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PS_NB_RUNS", str(folder / "runs"))
        yield render_twin("cuhk-twin", folder / "twin", "smoke")


@pytest.fixture(scope="module")
def run(data):
    return trained_acf(data, "smoke")


def test_another_gallery_is_the_same_run_and_other_detections(data, run, monkeypatch):
    found = acf_detections(run, data)
    monkeypatch.setattr(acf, "train_acf", lambda *_, **__: pytest.fail("trained twice"))
    half = replace(data, gallery=data.gallery[:5], protocols={})
    part = acf_detections(trained_acf(half, "smoke"), half)
    assert len(part.names) == 5 and np.array_equal(part.boxes, found.boxes[: len(part)])
    assert len(list(run.folder.glob("detections-*.npz"))) == 2


def test_other_people_and_another_seed_are_other_runs(data, run, monkeypatch):
    monkeypatch.setattr(acf, "train_acf", lambda *_, **__: run.detector)
    fewer = replace(data, train=data.train[:-1])
    assert len({run.folder, trained_acf(fewer, "smoke").folder, trained_acf(data, "smoke", 1).folder}) == 3


def test_every_profile_has_its_training():
    assert acf_training("paper").rounds == (32, 128, 512, 2048) != acf_training("small").rounds
    with pytest.raises(UserError, match="unknown profile"):
        acf_training("large")


def test_a_gallery_without_people_or_pictures_is_searched(data, run):
    assert len(acf_detections(run, replace(data, gallery=[], protocols={}))) == 0
    bare = [Scene(scene.name, scene.path, scene.width, scene.height, [], []) for scene in data.gallery]
    bare = replace(data, gallery=bare, protocols={})
    assert acf_detections(run, bare).names == tuple(scene.name for scene in data.gallery)


def test_tables_name_the_run_and_no_starting_weights(run):
    origins = run_origins([run])
    assert list(origins["recipes"]) == [run.folder.name] and origins["weights"] is None and origins["run_seconds"] > 0
    assert origins["data"] == {"cuhk-twin": run.facts["data"]}
