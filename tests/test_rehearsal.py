"""A rehearsal of `paper`, on an official tree in which every picture has its official size and shows nothing."""

import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ps_nb.core import UserError, read_json, write_json
from ps_nb.data.cuhk_sysu import write_cuhk_sysu
from ps_nb.data.loading import Augmentation, InputSize
from ps_nb.data.prw import write_prw
from ps_nb.data.scenes import Protocol, Query, Scene, SearchSet
from ps_nb.reproduction import rehearsal
from ps_nb.reproduction.notebooks import experiment_notebooks, settled_parameters
from ps_nb.systems import cgps, ctxg, cucps, idnet, joint, oim, rsiam, seqnet, two_step

PEOPLE = np.array([[60, 40, 180, 400], [300, 80, 420, 440], [560, 60, 690, 500]])  # of a scene of 800×600 pixels


def blank_scenes(folder, count, first, ids, shape=(600, 800), cameras=False):
    "Scenes of three people each, the first two of `ids` and a stranger, and their pictures; named as PRW's where it has cameras."
    folder.mkdir(parents=True, exist_ok=True)
    scenes = []
    for number in range(first, first + count):
        camera = 1 + number % 6 if cameras else None
        path = folder / (f"c{camera}s1_{number:06d}.jpg" if cameras else f"s{number}.jpg")
        cv2.imwrite(str(path), np.full((*shape, 3), 90 + number, np.uint8))
        known = [ids[number % len(ids)], ids[(number + 1) % len(ids)], -1]
        scenes.append(Scene(path.name, path, shape[1], shape[0], PEOPLE + number % 7, known, camera))
    return scenes


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    "A folder laid out as CUHK-SYSU, eight scenes to learn from and twelve to search in."
    pictures, root = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("cuhk") / "root"
    train, gallery = blank_scenes(pictures, 8, 1, [0, 1, 2]), blank_scenes(pictures, 12, 20, [0, 1])
    queries = [Query(0, gallery[0].boxes[0], int(gallery[0].ids[0]), [2], gallery[2].boxes[:1], [5, 6, 7]),
               Query(1, gallery[1].boxes[0], int(gallery[1].ids[0]), [3], gallery[3].boxes[:1], [8, 9, 10])]
    write_cuhk_sysu(SearchSet("cuhk", train, gallery, {"TestG100": Protocol("TestG100", queries)}), root)
    return root


@pytest.fixture(scope="module")
def official_prw(tmp_path_factory):
    "A folder laid out as PRW, with frames of its size; both people of each gallery scene are queries."
    pictures, root = tmp_path_factory.mktemp("frames"), tmp_path_factory.mktemp("prw") / "root"
    train, gallery = (blank_scenes(pictures, count, first, [0, 1, 2], (1080, 1920), True) for count, first in ((8, 1), (12, 20)))
    queries = [Query(number, scene.boxes[0], int(scene.ids[0]), [], np.zeros((0, 4))) for number, scene in enumerate(gallery)]
    write_prw(SearchSet("prw", train, gallery, {"standard": Protocol("standard", queries)}), root)
    return root


@pytest.fixture(scope="module")
def official_coco(tmp_path_factory):
    "A folder laid out as COCO 2017, with three people in each image."
    root = tmp_path_factory.mktemp("coco")
    scenes = blank_scenes(root / "train2017", 8, 1, [0, 1], (480, 720))
    write_json(root / "annotations" / "instances_train2017.json", {
        "images": [{"id": number, "file_name": scene.name, "width": 720, "height": 480} for number, scene in enumerate(scenes)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 10 * number + place, "image_id": number, "category_id": 1, "iscrowd": 0,
                         "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]}
                        for number, scene in enumerate(scenes) for place, (x1, y1, x2, y2) in enumerate(scene.boxes)]})
    return root


@pytest.fixture
def searched(official, official_prw, official_coco, monkeypatch, tmp_path):
    monkeypatch.setenv("PS_NB_COCO", str(official_coco))
    monkeypatch.setenv("PS_NB_CUHK_SYSU", str(official))
    monkeypatch.setenv("PS_NB_PRW", str(official_prw))
    monkeypatch.setenv("PS_NB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PS_NB_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return rehearsal.search_set("cuhk-sysu", "paper")


def small(recipe):
    "`recipe` with pictures of 64 pixels: what a processor takes a step of in a test."
    size = InputSize(64, 96)
    return replace(recipe, augmentation=Augmentation((size,)), test_size=size, schedule=replace(recipe.schedule, batch_size=2))


@pytest.mark.parametrize("system", [oim, ctxg, cgps, rsiam, cucps, joint, seqnet])
def test_a_few_steps_of_every_system(searched, system):
    row = rehearsal.few_steps(small(system("smoke")), searched, steps=1, images=1)
    assert min(row["step"], row["describing"], row["finding"]) > 0 and row["checkpoint_bytes"] > 2 * row["weights_bytes"] - 1
    schedule = system("smoke").schedule
    assert row["steps"] == schedule.epochs * -(-4 // schedule.accumulation)  # eight scenes in batches of two
    assert {"epoch"} < set(row["log"][0]) and all(np.isfinite(list(row["log"][0].values())))


def test_a_few_steps_on_crops(searched):
    for row in (rehearsal.few_crop_steps(idnet(small(joint("smoke"))), searched, 1, 2),
                rehearsal.few_cluster_steps(two_step("mmt", "smoke"), searched, 1, 2)):
        assert row["step"] > 0 and row["steps"] >= 1 and row["log"]


def test_an_experiment_is_rehearsed_on_the_official_sets(searched, tmp_path, monkeypatch, capsys):
    "Recipes of `paper` but for the size of their pictures; the experiment goes through to its result, which is thrown away."
    few = rehearsal.few_steps
    monkeypatch.setattr(rehearsal, "few_steps", lambda recipe, data, *given: few(small(cgps("smoke")), data, *given))
    monkeypatch.setattr(rehearsal, "imagenet_weights", lambda name: (_ for _ in ()).throw(UserError(f"no weights of {name}")))
    notebook, = experiment_notebooks("cgps", ["fig3d_clusters"])
    parameters = settled_parameters(notebook, {"profile": "paper"})
    write_json(tmp_path / "planned.json", [[str(notebook.absolute()), parameters]])
    rehearsal.rehearse_here(tmp_path, 1, 1)
    found = read_json(tmp_path / "rehearsed.json")
    assert found["ends"] == {"cgps/fig3d_clusters": None} and len(found["runs"]) == 2
    assert found["troubles"] == ["no weights of resnet50"]
    assert all(run["work"]["images"] == 8 and run["gallery"] == 12 for run in found["runs"].values())
    assert not list(tmp_path.glob("runs/cgps-*"))
    assert rehearsal.said(found, 1) == found["troubles"]
    assert capsys.readouterr().out.count("s a step), search ") == 2
    troubles = rehearsal.said(found, 10**6)
    assert len(troubles) == 3 and "GB free" in troubles[1] and "--jobs 1000000" in troubles[2]


ALL = [f"{notebook.parent.name}/{notebook.stem}" for key in ("e2e", "ctxg", "cgps", "rsiam", "cucps", "beyond")
       for notebook in experiment_notebooks(key) if notebook.stem not in ("growth", "real_video")]  # without an official set
FEW = ["beyond/all_protocols", "rsiam/tab4_comparison"]  # both sets, both detectors


ENDS = (  # where an experiment may end before its last cell when nothing is learned
    "nothing to tabulate", "no column 'map'",  # of a training that is not made, and of people who are found at random
    "gallery size",  # of a gallery of a few images
    "is known when it has looked",  # boxes of another detector
    "ImageNet weights")  # of a network on crops, which is fetched


@pytest.mark.parametrize("experiment", ALL if os.environ.get("PS_NB_LONG_TESTS") else FEW)
def test_experiments_go_through_on_official_sets(searched, tmp_path, monkeypatch, experiment):
    "Each run is tried with the recipe of `smoke` of its kind, and no result is of the wrong form for its table."
    few, crops, clusters = rehearsal.few_steps, rehearsal.few_crop_steps, rehearsal.few_cluster_steps
    monkeypatch.setattr(rehearsal, "few_steps", lambda recipe, *given: few(
        small((rsiam if recipe.name == "rsiam" else cgps)("smoke")), *given))
    monkeypatch.setattr(rehearsal, "few_crop_steps", lambda recipe, *given: crops(idnet(small(joint("smoke"))), *given))
    monkeypatch.setattr(rehearsal, "few_cluster_steps", lambda settings, *given: clusters(two_step("mmt", "smoke"), *given))
    monkeypatch.setattr(rehearsal, "imagenet_weights", lambda name: name)
    key, name = experiment.split("/")
    notebook, = experiment_notebooks(key, [name])
    write_json(tmp_path / "planned.json", [[str(notebook.absolute()), settled_parameters(notebook, {"profile": "paper"})]])
    rehearsal.rehearse_here(tmp_path, 1, 1)
    found = read_json(tmp_path / "rehearsed.json")
    assert found["troubles"] == [] and found["ends"].keys() == {experiment}
    assert not [run["tried"]["failed"] for run in found["runs"].values() if run["tried"] and "failed" in run["tried"]]
    reason = found["ends"][experiment]
    assert reason is None or any(words in reason for words in ENDS)
    if experiment in FEW:
        assert reason is None
        assert {run["announcement"].split(" on ")[1].split(",")[0] for run in found["runs"].values()} == {"cuhk-sysu", "prw"}


def test_what_is_missing_is_said_before_any_step(searched, tmp_path, monkeypatch):
    absent = replace(searched, train=[replace(searched.train[0], path=tmp_path / "gone.jpg"), *searched.train[1:]])
    monkeypatch.setitem(rehearsal.SETS, "cuhk-sysu", (lambda profile: absent, ('"cuhk-sysu"',)))
    monkeypatch.delenv("PS_NB_PRW", raising=False)
    planned = [(notebook, settled_parameters(notebook, {"profile": "paper"}))
               for notebook in experiment_notebooks("ctxg", ["tab2_components"]) + experiment_notebooks("cgps", ["fig4_cases"])]
    _, troubles = rehearsal.look_at_sets(planned)
    assert len(troubles) == 2 and "1 of 20 images are not there" in troubles[0] and "PS_NB_PRW" in troubles[1]
