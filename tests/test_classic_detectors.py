"Edge cases of boosting and of the classic detectors: odd images, nobody to learn from, files, real video."
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_nb.baselines import acf
from ps_nb.baselines.acf import (
    AcfTraining,
    Window,
    apply_detector,
    channel_pyramid,
    detect_acf,
    detect_hog,
    feature_channels,
    keep_best,
    load_detector,
    person_windows,
    save_detector,
    train_acf,
    unit_scores,
)
from ps_nb.baselines.boosting import Trees, boost, cascade_scores, quantise, tree_scores
from ps_nb.core import UserError, numpy_generator
from ps_nb.data.scenes import Scene
from ps_nb.evaluation.metrics import box_overlap

SMALL = Window(person=24, height=32, width=16)
LEARN = AcfTraining(SMALL, rounds=(8, 24), negatives=100)


def picture(seed=0, people=3):
    "A 160 x 120 picture of bright bars with dark feet on noise, and their boxes."
    generator = numpy_generator(seed, "picture")
    image = generator.integers(60, 140, (120, 160, 3), dtype=np.uint8)
    boxes = []
    for slot in range(people):
        height = int(generator.integers(40, 80))
        x, y, width = 8 + 50 * slot, int(generator.integers(2, 118 - height)), int(0.4 * height)
        image[y : y + height, x : x + width] = (230, 220, 200)
        image[y + height // 2 : y + height, x : x + width] = (30, 20, 20)
        boxes.append([x, y, x + width, y + height])
    return image, np.array(boxes, np.float32).reshape(-1, 4)


def make_scenes(folder, count=6, people=3, start=0):
    scenes = []
    for number in range(start, start + count):
        image, boxes = picture(number, people)
        cv2.imwrite(str(folder / f"{number}.png"), image[:, :, ::-1])
        scenes.append(Scene(f"{number}.png", folder / f"{number}.png", 160, 120, boxes, [-1] * len(boxes)))
    return scenes


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return train_acf(make_scenes(tmp_path_factory.mktemp("train"), 12), LEARN, workers=1)


def test_people_of_new_pictures_are_found(detector, tmp_path):
    scenes = make_scenes(tmp_path, start=50)
    found = apply_detector(scenes, partial(detect_acf, detector=detector), workers=1)
    best = [box_overlap(found.boxes[found.of(i)][:, None], scene.boxes[None]).max(axis=0) for i, scene in enumerate(scenes)]
    assert np.mean(np.concatenate(best) > 0.5) > 0.9, best
    assert found.features.shape == (len(found), 0) and found.scores.min() > 0 and found.scores.max() < 1


def test_training_repeats_itself(detector, tmp_path):
    again = train_acf(make_scenes(tmp_path, 12), LEARN, workers=2)
    assert np.array_equal(again.trees.features, detector.trees.features)
    assert np.allclose(again.trees.answers, detector.trees.answers) and again.rejection == detector.rejection
    other = train_acf(make_scenes(tmp_path, 12), LEARN, seed=1)
    assert not np.array_equal(other.trees.features, detector.trees.features)


def same_detector(one, other):
    return all(np.array_equal(*pair) for pair in zip(vars(one.trees).values(), vars(other.trees).values())) and (
        one.rejection == other.rejection)


def test_a_training_that_was_cut_off_goes_on(detector, tmp_path, monkeypatch):
    scenes, kept = make_scenes(tmp_path, 12), tmp_path / "rounds"
    monkeypatch.setattr(acf, "boost", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # before a single tree
        train_acf(scenes, LEARN, folder=kept, workers=1)
    assert sorted(path.name for path in kept.iterdir()) == ["background-0.npy", "background-0.npy.sha256"]
    monkeypatch.undo()
    first = train_acf(scenes, replace(LEARN, rounds=(8,)), folder=kept, workers=1)
    assert len(first.trees) == 8 and (kept / "round-0.npz").exists()
    calls = []
    monkeypatch.setattr(acf, "boost", lambda *given: calls.append(given[2]) or boost(*given))
    assert same_detector(train_acf(scenes, LEARN, folder=kept, workers=1), detector) and calls == [24]
    assert same_detector(train_acf(scenes, LEARN, folder=kept, workers=1), detector) and calls == [24]


@pytest.mark.parametrize("shape", [(1, 1), (10, 300), (300, 10), (33, 17)])
@pytest.mark.parametrize("level", [0, 200])
def test_odd_and_constant_images_are_searched(detector, shape, level):
    image = np.full((*shape, 3), level, np.uint8)
    for boxes, scores in (detect_acf(image, detector), detect_hog(image), detect_hog(image, smallest=40)):
        assert boxes.shape == (len(scores), 4) and boxes.dtype == scores.dtype == np.float32


def test_an_image_lower_than_the_smallest_person_has_no_window():
    pyramid = channel_pyramid(np.zeros((30, 200, 3), np.uint8), Window(), smallest=48)
    assert len(pyramid.starts) == 0 and pyramid.boxes(np.zeros(0, int), 0.4).shape == (0, 4)


def test_no_detection_at_all_is_a_valid_result(tmp_path):
    found = apply_detector(make_scenes(tmp_path, 2), lambda image: (np.zeros((0, 4), np.float32), np.zeros(0, np.float32)))
    assert len(found) == 0 and found.offsets.tolist() == [0, 0, 0] and found.features.shape == (0, 0)
    assert len(apply_detector([], detect_hog)) == 0


def test_nobody_to_learn_from_is_refused(tmp_path):
    with pytest.raises(UserError, match="no boxes"):
        train_acf(make_scenes(tmp_path, people=0), LEARN)


def test_no_background_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "full.png"), picture()[0])
    scene = Scene("full.png", tmp_path / "full.png", 160, 120, [[0, 0, 160, 120]], [0])
    with pytest.raises(UserError, match="background"):
        train_acf([scene], AcfTraining(SMALL, rounds=(4,)))


@pytest.mark.parametrize("sizes", [dict(height=62), dict(width=30), dict(person=80), dict(person=0)])
def test_windows_that_do_not_fit_are_refused(sizes):
    with pytest.raises(UserError, match="multiples of 4"):
        Window(**sizes)


def test_a_detector_survives_its_file(detector, tmp_path):
    save_detector(detector, tmp_path / "d.npz")
    again = load_detector(tmp_path / "d.npz")
    assert again.window == detector.window and again.rejection == detector.rejection
    image = picture(99)[0]
    assert all(np.array_equal(*pair) for pair in zip(detect_acf(image, detector), detect_acf(image, again)))


def test_broken_detector_files_are_named(detector, tmp_path):
    with pytest.raises(UserError, match="absent.npz"):
        load_detector(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not a zip file")
    np.savez(tmp_path / "other.npz", features=np.zeros(3))
    save_detector(detector, tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:500])
    np.save(tmp_path / "array.npz", np.zeros(3))
    (tmp_path / "array.npz.npy").rename(tmp_path / "array.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("text", "other", "cut", "array", "empty"):
        with pytest.raises(UserError, match=f"{name}.npz"):
            load_detector(tmp_path / f"{name}.npz")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=20))
def test_scores_keep_the_order(sums):
    scores = unit_scores(sums)
    assert (0 <= scores).all() and (scores <= 1).all()
    assert (np.diff(scores[np.argsort(sums)]) >= 0).all()


def test_confident_scores_stay_apart():
    assert len(np.unique(unit_scores(np.arange(10, 200)))) == 190


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 10), st.integers(0, 99))
def test_kept_boxes_lie_inside_and_do_not_overlap(count, limit, seed):
    generator = numpy_generator(seed, "boxes")
    corner = generator.uniform(-30, 100, (count, 2))
    boxes, scores = keep_best(np.concatenate([corner, corner + generator.uniform(1, 60, (count, 2))], axis=1),
                              generator.normal(size=count), 100, 80, 0.4, limit)
    assert len(boxes) <= limit and (np.diff(scores) <= 0).all()
    assert (boxes >= 0).all() and (boxes <= [100, 80, 100, 80]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    overlap = box_overlap(boxes[:, None], boxes[None])
    assert (overlap[~np.eye(len(boxes), dtype=bool)] <= 0.4 + 1e-5).all()


def test_windows_of_people_at_the_border_are_finite():
    image = picture()[0]
    windows = person_windows(image, [[-20, -20, 10, 60], [150, 100, 200, 300], [5, 5, 6, 7], [400, 400, 420, 460]], SMALL)
    assert windows.shape == (4, 2, SMALL.features) and np.isfinite(windows).all()
    assert person_windows(image, np.zeros((0, 4)), SMALL).shape == (0, 2, SMALL.features)


def test_a_person_window_is_the_pyramids_window():
    image, boxes = picture(3)
    height = boxes[0, 3] - boxes[0, 1]
    pyramid = channel_pyramid(image, Window(), smallest=float(height))
    away = np.abs(pyramid.centres - (boxes[0, :2] + boxes[0, 2:]) / 2).sum(axis=1)
    nearest = np.argmin(np.where(pyramid.heights < height * 1.02, away, np.inf))
    there = pyramid.values.ravel()[pyramid.starts[nearest] + pyramid.offsets(Window())]
    assert np.corrcoef(there, person_windows(image, boxes[:1], Window())[0, 0])[0, 1] > 0.8


def test_channels_of_tiny_images():
    assert feature_channels(np.zeros((4, 4, 3), np.uint8)).shape == (10, 1, 1)


def test_quantised_constant_features_are_one_bin():
    codes, low, width = quantise(np.full((5, 3), 0.7, np.float32))
    assert (codes == 0).all() and np.allclose(low, 0.7) and (width > 0).all()


@pytest.mark.parametrize("positive", [np.zeros(6, bool), np.ones(6, bool)])
def test_boosting_needs_both_sides(positive):
    with pytest.raises(UserError, match="people and background"):
        boost(np.eye(6, dtype=np.float32), positive, 3, numpy_generator(0))


def test_boosting_on_what_cannot_be_told_apart_says_nothing():
    trees = boost(np.ones((20, 4), np.float32), np.arange(20) < 10, 5, numpy_generator(0))
    assert np.isfinite(trees.answers).all() and np.allclose(tree_scores(np.ones((1, 4), np.float32), trees)[0], 0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.floats(-3, 1), st.integers(0, 99))
def test_the_cascade_equals_running_sums(count, number, rejection, seed):
    generator = numpy_generator(seed, "trees")
    trees = Trees(generator.integers(0, 6, (number, 3)), generator.normal(size=(number, 3)).astype(np.float32),
                  generator.normal(size=(number, 4)).astype(np.float32))
    features = generator.normal(size=(count, 6)).astype(np.float32)
    no = features[:, trees.features] >= trees.thresholds
    leaf = np.where(no[..., 0], 2 + no[..., 2], no[..., 1])
    running = np.cumsum(trees.answers[np.arange(number), leaf].astype(np.float64), axis=1)
    scores, _ = cascade_scores(features.ravel(), np.arange(count) * 6, trees, np.arange(6), rejection)
    expected = np.where(running.min(axis=1) >= rejection, running[:, -1], -np.inf)
    assert np.allclose(scores, expected, atol=1e-4)


def test_hog_finds_people_in_a_real_video():
    root = os.environ.get("PS_NB_TEST_DATA")
    if not root or not (Path(root) / "mot" / "TUD-Campus").is_dir():
        pytest.skip("PS_NB_TEST_DATA has no mot/TUD-Campus")
    sequence = Path(root) / "mot" / "TUD-Campus"
    rows = np.loadtxt(sequence / "gt" / "gt.txt", delimiter=",")
    met = []
    for frame in (1, 30, 60):
        here = rows[rows[:, 0] == frame]
        people = np.concatenate([here[:, 2:4], here[:, 2:4] + here[:, 4:6]], axis=1)
        image = cv2.imread(str(sequence / "img1" / f"{frame:06d}.jpg"))[:, :, ::-1]
        boxes, _ = detect_hog(image)
        met.append(box_overlap(boxes[:, None], people[None]).max(axis=0, initial=0))
    assert np.mean(np.concatenate(met) > 0.5) > 0.4
