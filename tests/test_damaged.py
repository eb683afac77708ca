"""Files that parse and are not what was written: each is one line, or is read and used."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_nb.baselines.acf import AcfDetector, Window, detect_acf, load_detector, save_detector
from ps_nb.baselines.boosting import Trees
from ps_nb.baselines.describe import load_array, save_array
from ps_nb.core import UserError, read_json
from ps_nb.data.scenes import Detections, Scene, load_detections
from ps_nb.evaluation.detection import evaluate_detection
from ps_nb.twin import everyday
from ps_nb.twin.everyday import everyday_scenes
from ps_nb.twin.plans import WorldSize
from ps_nb.twin.render import prepare_folder

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=6)
ODD = [np.array(5), np.zeros(0), np.zeros((0, 4)), np.zeros((3, 0), np.float32), np.zeros((2, 3, 4)), np.zeros(4, int),
       np.full((3, 4), np.nan, np.float32), np.full(3, np.inf), np.full((3, 3), -1), np.full((3, 3), 10**9), np.full(3, -1e300),
       np.zeros((3, 4), complex), np.zeros(3, bool), np.array(["a"] * 3), np.array([b"a"] * 3), np.array([2**63] * 3, np.uint64),
       np.zeros(3, "M8[s]"), np.zeros(3, [("x", int)]), np.zeros(3, np.float16), np.array([4, 8, 8, 0])]


def one_line_or_works(work) -> bool:
    "Whether `work()` works. It may raise a `UserError` of one line, and nothing else."
    try:
        work()
    except UserError as error:
        assert "\n" not in str(error) and str(error)
        return False
    return True


def test_any_array_in_a_detector(tmp_path):
    trees = Trees(np.zeros((3, 3), int), np.zeros((3, 3), np.float32), np.ones((3, 4), np.float32))
    path, image = tmp_path / "detector.npz", np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    save_detector(AcfDetector(trees, -1.0, Window(24, 32, 16), 0.4, 20.0), path)
    with np.load(path) as stored:
        arrays = dict(stored)
    work = lambda: detect_acf(image, load_detector(path))  # noqa: E731
    assert one_line_or_works(work)
    content = path.read_bytes()
    path.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    with pytest.raises(UserError, match="detector.npz is damaged"):
        load_detector(path)
    (tmp_path / "detector.npz.sha256").unlink()
    for name in arrays:
        for odd in ODD:
            np.savez(path, **arrays | {name: odd})
            one_line_or_works(work)
        np.savez(path, **{key: value for key, value in arrays.items() if key != name})
        assert not one_line_or_works(work)


def test_any_array_that_is_kept(tmp_path):
    save_array(tmp_path / "kept.npy", np.ones((3, 5), np.float32))
    assert load_array(tmp_path / "kept.npy", 3).shape == (3, 5)
    with pytest.raises(UserError, match="kept.npy is damaged"):
        load_array(tmp_path / "kept.npy", 4)
    (tmp_path / "kept.npy.sha256").unlink()
    for odd in [*ODD, np.array([None, 3])]:
        np.save(tmp_path / "kept.npy", odd, allow_pickle=True)
        assert one_line_or_works(lambda: load_array(tmp_path / "kept.npy")) == (odd.shape == (3, 0))
    for content in (b"", b"\x93NUMPY", b"PK\x03\x04"):
        (tmp_path / "kept.npy").write_bytes(content)
        assert not one_line_or_works(lambda: load_array(tmp_path / "kept.npy"))


def test_any_array_in_detections(tmp_path):
    scenes = [Scene(name, tmp_path / name, 40, 40, [[0, 0, 9, 20]], [0]) for name in ("a.png", "b.png")]
    names, path = [scene.name for scene in scenes], tmp_path / "detections.npz"
    Detections(tuple(names), [0, 2, 3], np.tile([0, 0, 9, 20], (3, 1)), np.ones(3), np.ones((3, 2)), np.ones((1, 2))).save(path)
    with np.load(path) as stored:
        arrays = dict(stored)
    work = lambda: evaluate_detection(load_detections(path, names), scenes)  # noqa: E731
    assert one_line_or_works(work)
    for name in arrays:
        for odd in [*ODD, np.array(["a.png", "b.png", "c.png"]), np.array([["a.png"]] * 3), np.zeros((3, 4), int)]:
            np.savez(path, **arrays | {name: odd})
            one_line_or_works(work)


@pytest.fixture(scope="module")
def everyday_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("everyday") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(everyday.EVERYDAY_SIZES, "smoke", WorldSize(3, 3, 2, 2, 48, 36, 12, (2,)))
        everyday_scenes(root, "smoke")
        yield root


@settings(max_examples=20, deadline=None, derandomize=True)
@given(value=JSON)
def test_any_value_in_the_parameters_of_pictures(everyday_folder, value):
    root = everyday_folder
    right, kept = read_json(root / "everyday.json"), root / "unfinished" / "parameters.json"
    (root / "everyday.json").write_text(json.dumps(value))
    assert not one_line_or_works(lambda: everyday_scenes(root, "smoke"))
    (root / "everyday.json").write_text(json.dumps(right))
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(value))
    assert not one_line_or_works(lambda: prepare_folder(root, kept.parent, root / "images", right))
    kept.unlink()


def test_everyday_pictures_of_other_parameters_or_damaged_are_refused(everyday_folder, monkeypatch):
    root = everyday_folder
    assert len(everyday_scenes(root, "smoke").train) == 3
    with pytest.raises(UserError, match="other parameters"):
        everyday_scenes(root, "smoke", seed=1)
    with pytest.raises(UserError, match="no size 'large'"):
        everyday_scenes(root, "large")
    monkeypatch.setattr(everyday, "EVERYDAY_WORLD", replace(everyday.EVERYDAY_WORLD, fashions=399))
    with pytest.raises(UserError, match="other parameters"):
        everyday_scenes(root, "smoke")
    monkeypatch.undo()
    monkeypatch.setitem(everyday.EVERYDAY_SIZES, "smoke", WorldSize(3, 3, 2, 2, 48, 36, 12, (2,)))
    (root / "annotations" / "train.json").write_text("[]")
    with pytest.raises(UserError, match="damaged everyday pictures.*render it again"):
        everyday_scenes(root, "smoke")
