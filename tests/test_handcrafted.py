"Named hand-crafted methods: few people, equal people, tiny boxes, no detection, and caches that notice a change."
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest

from ps_nb.baselines.describe import description_key, features_of_boxes, functions_of, true_boxes
from ps_nb.baselines.handcrafted import HANDCRAFTED, describe_detections, described_and_projected, learn_description
from ps_nb.baselines.metric_learning import Projection
from ps_nb.baselines.textures import dense_sift, lomo
from ps_nb.core import UserError, numpy_generator
from ps_nb.data.scenes import Protocol, Query, Scene, SearchSet


@pytest.fixture(params=HANDCRAFTED)
def method(request):
    return request.param


def make_scenes(folder, ids, seed=0, constant=False):
    "A noisy 80 x 60 picture with two people for each pair of `ids`."
    scenes = []
    for number, pair in enumerate(ids):
        image = numpy_generator(seed, number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        path = folder / f"{seed}-{number}.png"
        cv2.imwrite(str(path), np.full_like(image, 90) if constant else image)
        scenes.append(Scene(path.name, path, 80, 60, [[5, 4, 25, 50], [40, 4, 60, 50]], pair))
    return scenes


def street(folder, **options):
    gallery = make_scenes(folder, [(0, 1), (1, 0)], seed=1, **options)
    queries = [Query(0, gallery[0].boxes[0], 0, [1], gallery[1].boxes[1:])]
    train = make_scenes(folder, [(0, 1), (1, 0), (0, -1)], **options)
    return SearchSet("street", train, gallery, {"all": Protocol("all", queries)})


def test_the_fewest_people_are_enough(tmp_path, method):
    data = street(tmp_path)
    found = describe_detections(true_boxes(data.gallery), data, "all", learn_description(method, data.train))
    assert found.features.shape[1] == found.query_features.shape[1] and np.isfinite(found.features).all()
    assert found.features.shape[1] <= 4 or method == "BoW+cosine"  # five people with an identity
    assert np.allclose(found.query_features[0], found.features[0], atol=1e-4)  # the query is the first box


def test_tiny_boxes_and_boxes_outside_are_described(tmp_path, method):
    data = street(tmp_path)
    odd = [[3, 3, 4, 4], [79, 59, 80, 60], [0, 0, 80, 60], [10, 2, 12, 3]]
    odd = replace(true_boxes(data.gallery), offsets=[0, 4, 4], boxes=odd, scores=np.ones(4), features=np.zeros((4, 0)))
    found = describe_detections(odd, data, "all", learn_description(method, data.train))
    assert np.isfinite(found.features).all() and len(found) == 4


def test_no_detection_at_all_keeps_the_dimension(tmp_path, method):
    data = street(tmp_path)
    describe = learn_description(method, data.train)
    nobody = replace(true_boxes(data.gallery), offsets=[0, 0, 0], boxes=[], scores=[], features=np.zeros((0, 0)))
    for options in ({}, {"cache": tmp_path / "cache"}, {"cache": tmp_path / "cache"}):
        found = describe_detections(nobody, data, "all", describe, **options)
        assert len(found) == 0 and found.features.shape == (0, found.query_features.shape[1])


def test_people_who_all_look_the_same(tmp_path, method):
    data = street(tmp_path, constant=True)
    if method == "DSIFT+KISSME":
        with pytest.raises(UserError, match="equal"):
            learn_description(method, data.train)
        return
    found = describe_detections(true_boxes(data.gallery), data, "all", learn_description(method, data.train))
    assert np.allclose(found.features, found.features[0], atol=1e-5)


def test_fewer_people_than_components(tmp_path):
    train = make_scenes(tmp_path, [(0, 1), (1, 2), (2, 0)])
    for dimension, kept in ((3, 3), (256, 5)):
        describe = learn_description("DSIFT+Euclidean", train, dimension=dimension)
        assert features_of_boxes(train, describe).features.shape == (6, kept)


@pytest.mark.parametrize("ids, reason", [([(-1, -1)], "identity"), ([(0, 0)], "1 identities"), ([(0, 1)], "0 and 1 pairs")])
def test_too_little_to_learn_a_metric_from_is_refused(tmp_path, ids, reason):
    for method in ("DSIFT+KISSME", "LOMO+XQDA"):
        with pytest.raises(UserError, match=reason):
            learn_description(method, make_scenes(tmp_path, ids))


def test_unknown_methods_and_foreign_detections_are_refused(tmp_path):
    data = street(tmp_path)
    with pytest.raises(UserError, match="choose one of DSIFT"):
        learn_description("SIFT", data.train)
    with pytest.raises(UserError, match="same order"):
        describe_detections(true_boxes(data.train), data, "all", dense_sift)
    with pytest.raises(UserError, match="no protocol"):
        describe_detections(true_boxes(data.gallery), data, "TestG50", dense_sift)


def test_the_cache_tells_learned_methods_apart(tmp_path):
    data, cache = street(tmp_path), tmp_path / "cache"
    described = {}
    for method in HANDCRAFTED:
        describe = learn_description(method, data.train, cache=cache)
        described[method] = features_of_boxes(data.gallery, describe, cache=cache).features
        again = features_of_boxes(data.gallery, learn_description(method, data.train), cache=cache).features
        assert np.array_equal(described[method], again)
    few = features_of_boxes(data.gallery, learn_description("DSIFT+Euclidean", data.train, dimension=2), cache=cache).features
    assert few.shape == (4, 2) and np.allclose(few, described["DSIFT+Euclidean"][:, :2], atol=1e-4)


def test_the_name_in_the_cache_depends_on_every_function_and_number(tmp_path, monkeypatch):
    scenes = make_scenes(tmp_path, [(0, 1)])
    boxes = [scene.boxes for scene in scenes]

    def name(describe, scale):
        projection = Projection(np.zeros(3, np.float32), scale * np.eye(3, dtype=np.float32))
        return description_key(scenes, boxes, partial(described_and_projected, describe=describe, projection=projection))

    names = {name(dense_sift, 1), name(lomo, 1), name(dense_sift, 2), name(partial(lomo, correct_light=False), 1)}
    assert len(names) == 4 and name(dense_sift, 1) in names
    assert functions_of(partial(described_and_projected, describe=partial(lomo, correct_light=False))) == [
        described_and_projected, lomo]
    before = name(dense_sift, 1)
    monkeypatch.setattr("ps_nb.baselines.describe.source_of", lambda function: f"changed {function.__name__ == 'dense_sift'}")
    assert name(dense_sift, 1) != before and name(dense_sift, 1) != name(lomo, 1)
