"""A stage that was killed at a file that it writes or deletes, and is started again, ends with the files of one that was not."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ps_nb.baselines.colours import colour_histogram
from ps_nb.baselines.describe import describe_boxes
from ps_nb.core import UNFINISHED, read_json
from ps_nb.search import index
from ps_nb.search.index import index_images
from ps_nb.systems.acf import acf_detections, trained_acf
from ps_nb.systems.graph_stage import context_graph, trained_scorer
from ps_nb.systems.recipes import ctxg
from ps_nb.systems.runs import object_training, runs_folder, trained
from ps_nb.systems.two_step import trained_on_crops, two_step
from ps_nb.training.crops import CropTraining
from ps_nb.training.starting_weights import object_weights
from ps_nb.twin.everyday import everyday_scenes
from ps_nb.twin.plans import WorldSize
from ps_nb.twin.render import render_twin

LINKED = partial(shutil.copytree, copy_function=os.link)  # files are replaced and never changed, so links are copies


@contextmanager
def kills(monkeypatch, folder: Path, left: list[Path]):
    """Within the block, what a kill leaves of `folder` is put beside it, and into `left`: one folder for each file that is
    about to be put into its place or to be deleted, named by its number and that file.
    """
    change = {name: getattr(os, name) for name in ("replace", "unlink")}

    def watched(name, *paths, **options):
        path = Path(paths[-1])
        if ("dir_fd" in options or folder in path.parents) and not path.name.startswith(UNFINISHED):  # dir_fd: of a whole folder
            left.append(folder.with_name(f"{len(left):03d} {name} {path.name}"))
            LINKED(folder, left[-1])
        return change[name](*paths, **options)

    with monkeypatch.context() as patch:
        for name in change:
            patch.setattr(os, name, partial(watched, name))
        yield


def contents(folder: Path) -> dict:
    "Every file below `folder`, without what tells the time or the memory used."
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"):
        value = read_json(path) if path.suffix == ".json" else path.read_bytes()
        if isinstance(value, dict):
            measured = ("seconds", "peak_memory_mb", "peak_gpu_memory_mb")
            value = {name: each for name, each in value.items() if name not in measured}
        found[str(path.relative_to(folder))] = value
    return found


def check_kills(monkeypatch, tmp_path: Path, work, wanted=lambda moments: moments, start: Path | None = None) -> list[str]:
    """Do `work` in a folder, then finish what a kill at each of the `wanted` moments left of it, and compare all files.

    `start` holds what is there before. Returns those moments, such as "replace checkpoint.pt".
    """
    tmp_path.mkdir(exist_ok=True)
    whole = tmp_path / "whole"
    LINKED(start, whole) if start else whole.mkdir()
    left = []
    with kills(monkeypatch, whole, left):
        work(whole)
    expected, names = contents(whole), wanted([path.name for path in left])
    moments = [path for path in left if path.name in names]
    for moment in moments:
        work(moment)
        found = contents(moment)
        assert found.keys() == expected.keys(), (moment.name, found.keys() ^ expected.keys())
        assert not [name for name in expected if found[name] != expected[name]], moment.name
    return [moment.name[4:] for moment in moments]


def drawn(moments: list[str]) -> list[str]:
    "One picture in nine, and everything else."
    return [moment for moment in moments if not moment.endswith("jpg") or int(moment[:3]) % 9 == 0]


def chosen(*wanted: tuple[int, str]):
    "Of the moments that begin with a text, number so and so, counted from 0 or, with -1, from the end."
    return lambda moments: [[each for each in moments if each[4:].startswith(text)][number] for number, text in wanted]


def test_renders(tmp_path, monkeypatch):
    size = WorldSize(6, 4, 4, 3, 48, 36, 12, (2,))
    twin = check_kills(monkeypatch, tmp_path / "twin", partial(render_twin, "cuhk-twin", size=size), drawn)
    assert {"parameters.json", "000000.json", "Images.mat", "twin.json"} <= {moment.split()[1] for moment in twin}
    monkeypatch.setitem(everyday_scenes.__globals__["EVERYDAY_SIZES"], "smoke", replace(size, train_scenes=3))
    everyday = check_kills(monkeypatch, tmp_path / "everyday", partial(everyday_scenes, size="smoke"), drawn)
    assert "train.json" in {moment.split()[1] for moment in everyday}


def test_index(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "PART_IMAGES", 2)
    (tmp_path / "photographs").mkdir()
    for number in range(5):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(tmp_path / "photographs" / f"{number}.png")

    def detect(image):
        return np.array([[0, 0, 4, 8]]), np.ones(1), np.array([[1.0, image[0, 0, 0]]])

    work = lambda folder: index_images([tmp_path / "photographs"], detect, "toy", folder)  # noqa: E731
    moments = check_kills(monkeypatch, tmp_path / "folders", lambda folder: work(folder / "index"))
    assert [moment.split()[1] for moment in moments] == [
        "index.json", *["part-00000.npz", "index.json", "part-00001.npz", "index.json", "part-00002.npz", "index.json"],
        "index.json"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    "Scenes to train on, and a folder of runs in which the starting weights are."
    data = render_twin("cuhk-twin", tmp_path_factory.mktemp("data") / "twin", "smoke")
    runs = tmp_path_factory.mktemp("start")
    object_weights(object_training("resnet18", "smoke"), runs / "weights", "cpu")
    return replace(data, train=data.train[:5], gallery=data.gallery[:2], protocols={}), runs


def in_runs(monkeypatch, work):
    "`work()` in the folder of runs that it is given."
    def there(folder):
        monkeypatch.setenv("PS_NB_RUNS", str(folder))
        return work()

    return there


def test_descriptions_and_acf(start, tmp_path, monkeypatch):
    data, _ = start
    moments = check_kills(monkeypatch, tmp_path, in_runs(monkeypatch, lambda: (
        describe_boxes(data.gallery, [scene.boxes for scene in data.gallery], colour_histogram, runs_folder() / "kept"),
        acf_detections(trained_acf(data, "smoke"), data))), chosen(
        (0, "replace background-1.npy"), (0, "replace round-1.npz"), (0, "replace detector.npz"), (0, "replace run.json"),
        (1, "unlink round"), (0, "replace detections")))
    assert len(moments) == 6


def test_searchers_and_graphs(start, tmp_path, monkeypatch):
    data, runs = start
    crops = CropTraining(64, 32, epochs=2, batch_size=16, learning_rate=0.05, milestones=())
    recipe = ctxg("smoke")
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=2), objective=replace(recipe.objective, crops=crops))

    def work():
        trained_scorer(trained(recipe, data, "smoke", device="cpu"), data, context_graph("smoke"))

    check_kills(monkeypatch, tmp_path, in_runs(monkeypatch, work), chosen(
        (1, "replace checkpoint.pt.sha256"),  # the first checkpoint of crops is there
        (3, "replace checkpoint.pt.sha256"),  # the first of scenes is there
        (-1, "replace graph")), start=runs)  # the graph is there, and not what describes it


def test_two_steps(start, tmp_path, monkeypatch):  # sbl keeps a part of what spcl keeps, and mmt networks more of the same kind
    data, runs = start
    settings = replace(two_step("spcl", "smoke"), height=32, width=16, feature_size=8, steps=1)
    work = in_runs(monkeypatch, partial(trained_on_crops, settings, data, "smoke", device="cpu"))
    check_kills(monkeypatch, tmp_path, work, chosen((1, "replace checkpoint.pt.sha256"), (-1, "replace run.json")), start=runs)
