"Edge cases of the hand-crafted descriptions: odd boxes, odd pictures, caching, real video."
import os
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_nb.baselines.colours import Codebook, bag_of_words, colour_histogram, learn_codebook, patch_colours
from ps_nb.baselines.describe import (
    describe_boxes,
    features_of_boxes,
    features_of_detections,
    features_of_queries,
)
from ps_nb.baselines.textures import dense_sift, lomo, retinex, sift_patches, strip_maxima, ternary_patterns
from ps_nb.core import UserError, numpy_generator
from ps_nb.data.scenes import Protocol, Query, Scene
from ps_nb.training.crops import standard_crops

WORDS = np.abs(numpy_generator(0, "words").normal(size=(60, 11))).astype(np.float32)
WORDS /= np.linalg.norm(WORDS, axis=1, keepdims=True)
CODEBOOK = Codebook(WORDS, np.linspace(0, 2, 60, dtype=np.float32))
DESCRIPTIONS = {"colour_histogram": colour_histogram, "bag_of_words": partial(bag_of_words, codebook=CODEBOOK),
                "dense_sift": dense_sift, "lomo": lomo, "lomo without retinex": partial(lomo, correct_light=False)}


@pytest.fixture(params=DESCRIPTIONS)
def describe(request):
    return DESCRIPTIONS[request.param]


def noise(height=60, width=80, seed=0):
    return numpy_generator(seed, "noise").integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_scenes(folder, counts=(2, 0, 3)):
    scenes = []
    for number, count in enumerate(counts):
        cv2.imwrite(str(folder / f"{number}.png"), noise(seed=number))
        boxes = [[5 + 10 * i, 4, 25 + 10 * i, 50] for i in range(count)]
        scenes.append(Scene(f"{number}.png", folder / f"{number}.png", 80, 60, np.reshape(boxes, (-1, 4)), range(count)))
    return scenes


def test_odd_boxes_give_unit_features(describe):
    boxes = [[0, 0, 80, 60], [3.4, 2.2, 3.6, 2.4], [79.9, 59.9, 80, 60], [-50, -50, -20, -10], [500, 2, 900, 1e9],
             [10, 10, 11, 40], [10, 10, 40, 11], [-5, -5, 200, 200]]
    features = describe(noise(), np.array(boxes))
    assert features.dtype == np.float32 and features.ndim == 2 and len(features) == len(boxes)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_constant_images_give_unit_features(describe, level):
    features = describe(np.full((40, 30, 3), level, np.uint8), [[2, 2, 20, 38], [0, 0, 30, 40]])
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.allclose(features[0], features[1], atol=1e-5)  # nothing to tell the two boxes apart by


def test_no_box_keeps_the_dimension(describe):
    some, none = describe(noise(), [[2, 2, 20, 38]]), describe(noise(), np.zeros((0, 4)))
    assert none.shape == (0, some.shape[1])


def test_each_box_is_described_on_its_own(describe):
    boxes = np.array([[2, 2, 20, 38], [30, 5, 60, 55], [40, 1, 52, 30]])
    together, apart = describe(noise(), boxes), [describe(noise(), box[None])[0] for box in boxes]
    assert np.allclose(together, apart, atol=1e-5)


def test_one_pixel_image(describe):
    assert np.isfinite(describe(np.full((1, 1, 3), 9, np.uint8), [[0, 0, 1, 1]])).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_any_finite_box_can_be_cut(box):
    crops = standard_crops(noise(), box)
    assert crops.shape == (1, 128, 64, 3)


def test_a_crop_is_what_the_box_frames():
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:80, 30:60] = 200
    assert (standard_crops(image, [[30, 20, 60, 80]]) == 200).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 128), st.tuples(*[st.integers(1, 12)] * 3), st.integers(0, 5))
def test_histogram_is_unit_for_any_binning(stripes, bins, seed):
    features = colour_histogram(noise(seed=seed), [[1, 1, 40, 50]], stripes, bins)
    assert features.shape == (1, stripes * np.prod(bins)) and np.isclose(np.linalg.norm(features), 1, atol=1e-5)


def test_detections_keep_scenes_without_people(tmp_path):
    scenes = make_scenes(tmp_path)
    found = features_of_boxes(scenes, colour_histogram, workers=2)
    assert np.diff(found.offsets).tolist() == [2, 0, 3] and np.array_equal(found.boxes[2:], scenes[2].boxes)
    again = features_of_detections(scenes, found, partial(colour_histogram, stripes=2))
    assert again.features.shape == (5, 256) and np.array_equal(again.scores, found.scores)
    with pytest.raises(UserError, match="same order"):
        features_of_detections(scenes[::-1], found, colour_histogram)


def test_nobody_anywhere(tmp_path):
    assert features_of_boxes(make_scenes(tmp_path, (0, 0)), colour_histogram).features.shape == (0, 1024)
    assert len(features_of_boxes([], colour_histogram)) == 0


def test_queries_of_one_image_in_any_order(tmp_path):
    scenes = make_scenes(tmp_path)
    queries = [Query(2, scenes[2].boxes[i], i, [0], scenes[0].boxes[:1]) for i in (2, 0, 1)]
    features = features_of_queries(scenes, Protocol("three", queries), colour_histogram)
    assert np.array_equal(features, features_of_boxes(scenes, colour_histogram).features[[4, 2, 3]])
    with pytest.raises(UserError, match="no queries"):
        features_of_queries(scenes, Protocol("empty", []), colour_histogram)


def test_cache_follows_pixels_boxes_and_function(tmp_path):
    scenes, cache = make_scenes(tmp_path), tmp_path / "cache"

    def files():
        return len(list(cache.glob("*.npy")))

    first = features_of_boxes(scenes, colour_histogram, cache=cache)
    assert np.array_equal(features_of_boxes(scenes, colour_histogram, cache=cache).features, first.features) and files() == 1
    features_of_boxes(scenes, partial(colour_histogram, stripes=4), cache=cache)
    assert files() == 2
    cv2.imwrite(str(tmp_path / "0.png"), noise(seed=99))
    changed = features_of_boxes(scenes, colour_histogram, cache=cache)
    assert files() == 3 and not np.array_equal(changed.features[:2], first.features[:2])
    describe_boxes(scenes, [np.array([[1, 1, 9, 9]])] * 3, colour_histogram, cache=cache)
    assert files() == 4
    with pytest.raises(UserError, match="named function"):
        features_of_boxes(scenes, lambda image, boxes: colour_histogram(image, boxes), cache=cache)


@pytest.mark.parametrize("cache", [None, "cache"])
def test_missing_image_is_named(tmp_path, cache):
    scenes = make_scenes(tmp_path)
    scenes[2].path.unlink()
    with pytest.raises(UserError, match="2.png"):
        features_of_boxes(scenes, colour_histogram, cache=cache and tmp_path / cache)


def test_a_description_that_gives_nonsense_is_refused(tmp_path):
    for nonsense in (lambda image, boxes: np.full((len(boxes), 3), np.nan), lambda image, boxes: np.ones((7, 3))):
        with pytest.raises(UserError, match="0.png"):
            features_of_boxes(make_scenes(tmp_path), nonsense)


def test_codebook_of_few_colours_is_smaller(tmp_path):
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((60, 80, 3), 90, np.uint8))
    scenes = [Scene("plain.png", tmp_path / "plain.png", 80, 60, [[2, 2, 30, 50], [40, 2, 70, 50]], [0, 1])]
    codebook = learn_codebook(scenes)
    assert codebook.words.shape == (1, 11) and codebook.weights.tolist() == [0]
    features = bag_of_words(np.full((60, 80, 3), 90, np.uint8), scenes[0].boxes, codebook)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)  # nothing tells, but nothing breaks


def test_codebook_depends_on_the_seed_and_the_sample_alone(tmp_path):
    scenes = make_scenes(tmp_path)
    first, second = learn_codebook(scenes, words=8, seed=0), learn_codebook(scenes, words=8, seed=1)
    assert not np.array_equal(first.words, second.words)
    assert np.array_equal(first.words, learn_codebook(scenes, words=8, seed=0, workers=1).words)
    few = learn_codebook(scenes, words=8, people=1)
    assert few.words.shape == (8, 11) and few.weights.max() <= np.log(17)  # 16 stripes of one person


def test_codebook_without_people_is_refused(tmp_path):
    with pytest.raises(UserError, match="no boxes"):
        learn_codebook(make_scenes(tmp_path, (0, 0)))


def test_patch_colours_of_a_plain_patch_are_its_pixels_names():
    image = np.zeros((128, 64, 3), np.uint8)
    image[:4, :4] = (200, 30, 40)
    patches = patch_colours(image, [[0, 0, 64, 128]])[0]
    assert patches[0, 0].argmax() == 8 and patches[0, 1].argmax() == 0  # red, black
    assert np.allclose(np.linalg.norm(patches, axis=2), 1, atol=1e-5)


def test_sift_of_a_plain_patch_is_zero_and_finite():
    assert (sift_patches(np.full((64, 64), 80, np.uint8), np.array([[0, 0], [32, 32]]), 32) == 0).all()


@pytest.mark.parametrize("level", [0, 1, 255])
def test_retinex_of_a_plain_crop_is_plain(level):
    assert len(np.unique(retinex(np.full((2, 12, 8, 3), level, np.uint8)))) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 30), st.integers(10, 30), st.integers(1, 5), st.integers(0, 99))
def test_patterns_and_maxima_keep_their_bounds(height, width, radius, seed):
    grey = numpy_generator(seed, "grey").integers(0, 256, (2, height, width))
    codes = ternary_patterns(grey, radius)
    assert codes.min() >= 0 and codes.max() <= 80
    maxima = strip_maxima(codes, 81)
    assert maxima.shape == (2, (height // 5 - 1) * 81) and maxima.max() <= 100
    assert (maxima.reshape(2, -1, 81).sum(axis=2) >= 100).all()  # at least what one window holds


def video_people(every=6):
    "Boxes of every sixth frame of a real street video as scenes, with identities."
    root = os.environ.get("PS_NB_TEST_DATA")
    if not root or not (Path(root) / "mot" / "TUD-Stadtmitte").is_dir():
        pytest.skip("PS_NB_TEST_DATA has no mot/TUD-Stadtmitte")
    sequence = Path(root) / "mot" / "TUD-Stadtmitte"
    rows = np.loadtxt(sequence / "gt" / "gt.txt", delimiter=",")
    scenes = []
    for frame in range(1, 180, every):
        here = rows[rows[:, 0] == frame]
        corners = np.concatenate([here[:, 2:4], here[:, 2:4] + here[:, 4:6]], axis=1)
        scenes.append(Scene(f"{frame}", sequence / "img1" / f"{frame:06d}.jpg", 640, 480, corners, here[:, 1]))
    return scenes


def test_people_of_a_real_video_are_told_apart(describe):
    scenes = video_people()
    features = features_of_boxes(scenes, describe).features
    ids = np.concatenate([scene.ids for scene in scenes])
    frame = np.repeat(np.arange(len(scenes)), [len(scene) for scene in scenes])
    similarity = features @ features.T
    similarity[np.abs(frame[:, None] - frame) < 5] = -np.inf  # not merely the frame before
    correct = (ids[similarity.argmax(axis=1)] == ids).mean()
    chance = np.mean([(ids == person).mean() for person in ids])
    assert correct > 0.5 > 3 * chance, (correct, chance)
