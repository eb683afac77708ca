"Indices that were cut off, damaged, extended or made by somebody else; searches of every shape."
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import textwrap
import types

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ps_nb.search.index
from ps_nb.core import UserError, read_json, seed_everything
from ps_nb.data.loading import InputSize
from ps_nb.data.scenes import Detections
from ps_nb.detector.inference import detect_image, embed_boxes, model_fingerprint
from ps_nb.detector.searcher import PersonSearcher
from ps_nb.detector.settings import DetectorSettings
from ps_nb.search.index import (
    GalleryIndex,
    checked_people,
    draw_search,
    index_images,
    load_index,
    merged,
    moved,
    nearest,
    query_box,
    search_box,
    search_index,
    write_approximate,
    write_search,
)
from ps_nb.search.photographs import GalleryImage
from ps_nb.search.shards import chosen_engine, shard_rows


def describe(image, boxes):
    "Features that depend on the pixels inside a box and on nothing else."
    corners = np.asarray(boxes, int).reshape(-1, 4)
    return np.array([[*image[y1:y2, x1:x2].mean((0, 1)) - 128, 1] for x1, y1, x2, y2 in corners]).reshape(-1, 4)


def detect(image):
    "One person for every 10 grey levels of the first pixel, side by side."
    count = int(image[0, 0, 0]) // 10
    boxes = np.array([[10 * number, 5, 10 * number + 8, 25] for number in range(count)], np.float32).reshape(-1, 4)
    return boxes, np.linspace(0.9, 0.4, count), describe(image, boxes)


class Detector:
    "`detect` that remembers what it saw, and fails at call number `fail_at`."

    def __init__(self, fail_at=None, error=KeyboardInterrupt):
        self.seen, self.fail_at, self.error = [], fail_at, error

    def __call__(self, image):
        if len(self.seen) == self.fail_at:
            raise self.error
        self.seen.append(image)
        return detect(image)


def make_photos(folder, count, first=0, people=3):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        image = np.random.default_rng(number).integers(0, 256, (30, 60, 3), dtype=np.uint8)
        image[0, 0] = 10 * (number % (people + 1))
        Image.fromarray(image).save(folder / f"s{number}.png")
    return folder


def same(first, second):
    return (first.images == second.images and first.model == second.model
            and all(np.array_equal(getattr(first.detections, key), getattr(second.detections, key))
                    for key in ("offsets", "boxes", "scores", "features")))


def random_index(seed, images, width=8, model="toy"):
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 4, images)
    features = draw.standard_normal((counts.sum(), width)).astype(np.float32)
    if len(features) > 3:
        features[len(features) // 2] = features[0]  # equal similarities
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    boxes = draw.integers(0, 50, (counts.sum(), 4)) + [0, 0, 60, 60]
    names = [GalleryImage(f"s{number}.png", f"/s{number}.png", -1, str(number)) for number in range(images)]
    return GalleryIndex(model, names, Detections([image.name for image in names], np.concatenate([[0], np.cumsum(counts)]),
                                                 boxes, draw.random(counts.sum()), features))


# ---------------------------------------------------------------- making, continuing, extending


@pytest.mark.parametrize("fail_at", [0, 1, 4, 5, 9])
def test_an_interrupted_index_continues_where_it_was(tmp_path, monkeypatch, fail_at):
    monkeypatch.setattr(ps_nb.search.index, "PART_IMAGES", 4)
    photos = make_photos(tmp_path / "photos", 10)
    with pytest.raises(KeyboardInterrupt):
        index_images([photos], Detector(fail_at), "toy", tmp_path / "index")
    cut = load_index(tmp_path / "index")
    assert len(cut.images) == fail_at and not cut.complete
    rest = Detector()
    index = index_images([photos], rest, "toy", tmp_path / "index")
    assert len(rest.seen) == 10 - fail_at and index.complete
    assert same(index, index_images([photos], detect, "toy", tmp_path / "at once"))
    listed = [part["file"] for part in read_json(tmp_path / "index" / "index.json")["parts"]]  # each with its checksum
    assert {path.name for path in (tmp_path / "index").iterdir()} == {".lock", "index.json", "features.bin", *listed}


def test_a_killed_index_continues_from_its_last_part(tmp_path):
    photos = make_photos(tmp_path / "photos", 10)
    program = "import os\nimport numpy as np\nimport ps_nb.search.index\n"
    program += inspect.getsource(describe) + inspect.getsource(detect)
    program += textwrap.dedent("""
        ps_nb.search.index.PART_IMAGES = 4
        seen = []

        def killed(image):
            seen.append(1)
            if len(seen) == 7:
                os._exit(9)
            return detect(image)

        ps_nb.search.index.index_images(["photos"], killed, "toy", "index")
    """)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 9, done.stderr
    assert len(load_index(tmp_path / "index").images) == 4
    rest = Detector()
    index = index_images([photos], rest, "toy", tmp_path / "index")
    assert len(rest.seen) == 6
    assert same(index, index_images([photos], detect, "toy", tmp_path / "at once"))


def test_a_part_that_was_written_but_not_listed_is_replaced(tmp_path, monkeypatch):
    photos = make_photos(tmp_path / "photos", 5)
    calls = []

    def torn_list(path, value, write=ps_nb.search.index.write_json):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(ps_nb.search.index, "write_json", torn_list)
    with pytest.raises(KeyboardInterrupt):
        index_images([photos], detect, "toy", tmp_path / "index")
    monkeypatch.undo()
    assert (tmp_path / "index" / "part-00000.npz").exists() and load_index(tmp_path / "index").images == []
    index = index_images([photos], detect, "toy", tmp_path / "index")
    assert same(index, index_images([photos], detect, "toy", tmp_path / "at once"))


def test_new_images_are_added_and_old_ones_stay(tmp_path):
    photos = make_photos(tmp_path / "photos", 5)
    first = index_images([photos], detect, "toy", tmp_path / "index")
    make_photos(photos, 3, first=5)
    only_new = Detector()
    second = index_images([photos], only_new, "toy", tmp_path / "index")
    assert len(only_new.seen) == 3 and second.images[:5] == first.images
    assert np.array_equal(second.detections.features[: len(first)], first.detections.features)
    third = index_images([photos], Detector(fail_at=0), "toy", tmp_path / "index")
    assert same(second, third) and third.complete


def test_copies_are_indexed_once_and_changes_refused(tmp_path):
    photos = make_photos(tmp_path / "photos", 3)
    (photos / "t0.png").write_bytes((photos / "s0.png").read_bytes())
    index = index_images([photos, photos / "s1.png"], detect, "toy", tmp_path / "index")
    assert [image.name for image in index.images] == ["photos/s0.png", "photos/s1.png", "photos/s2.png"]
    (photos / "s1.png").write_bytes((photos / "s2.png").read_bytes())  # now a copy of another
    assert len(index_images([photos], detect, "toy", tmp_path / "index").images) == 3
    make_photos(photos, 1, first=9)
    (photos / "s9.png").rename(photos / "s1.png")
    with pytest.raises(UserError, match="s1.png"):
        index_images([photos], detect, "toy", tmp_path / "index")


def test_an_unreadable_image_ends_the_run_but_keeps_the_work(tmp_path):
    photos = make_photos(tmp_path / "photos", 4)
    (photos / "s2.png").write_bytes((photos / "s2.png").read_bytes()[:60])
    with pytest.raises(UserError, match="s2.png") as caught:
        index_images([photos], detect, "toy", tmp_path / "index", strict=True)
    assert "\n" not in str(caught.value)
    assert len(load_index(tmp_path / "index").images) == 2
    index = index_images([photos], detect, "toy", tmp_path / "index")
    assert index.complete and len(index.images) == 3 and list(index.skipped) == ["photos/s2.png"]
    assert read_json(tmp_path / "index" / "index.json")["skipped"] == index.skipped
    (photos / "s2.png").unlink()
    rest = Detector()
    assert index_images([photos], rest, "toy", tmp_path / "index").complete and len(rest.seen) == 0


def test_images_without_people_are_indexed_too(tmp_path):
    photos = make_photos(tmp_path / "photos", 4, people=0)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    assert len(index.images) == 4 and len(index) == 0
    assert len(search_index(index, np.ones(4))) == 0
    again = Detector(fail_at=0)
    index_images([photos], again, "toy", tmp_path / "index")
    make_photos(photos, 4, first=5, people=2)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    assert len(index.images) == 8 and len(index) > 0
    assert index.detections.features.shape == (len(index), 4)


def test_an_index_folder_is_new_empty_or_an_index(tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    with pytest.raises(UserError, match="holds other files"):
        index_images([photos], detect, "toy", photos)
    assert sorted(path.name for path in photos.iterdir()) == ["s0.png", "s1.png"]  # nothing was left there
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        index_images([photos], detect, "toy", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert len(index_images([photos], detect, "toy", tmp_path / "empty").images) == 2
    with pytest.raises(UserError, match="stride"):
        index_images([photos], detect, "toy", tmp_path / "index", stride=0)


def as_version_2(folder):
    "Make the index what version 2 wrote: features lie in the parts."
    manifest = read_json(folder / "index.json")
    features, end = np.fromfile(folder / "features.bin", np.float32).reshape(-1, manifest["width"]), 0
    for part in manifest["parts"]:
        start, end = end, end + part["people"]
        with np.load(folder / part["file"]) as stored:
            np.savez(folder / part["file"], **dict(stored), features=features[start:end])
        part["checksum"] = ps_nb.search.index.file_checksum(folder / part["file"])
        del part["features"]
    (folder / "index.json").write_text(json.dumps(manifest | {"version": 2}))
    (folder / "features.bin").unlink()


def test_an_index_of_version_2_is_read_and_made_new_when_it_is_extended(tmp_path, monkeypatch):
    monkeypatch.setattr(ps_nb.search.index, "PART_IMAGES", 2)
    photos, folder = make_photos(tmp_path / "photos", 5), tmp_path / "index"
    index = index_images([photos], detect, "toy", folder)
    as_version_2(folder)
    old = load_index(folder)
    assert same(index, old) and not (folder / "features.bin").exists()
    with pytest.raises(UserError, match="run search index again"), chosen_engine(folder, old, cluster="local"):
        pass
    make_photos(photos, 2, first=5)
    extended = index_images([photos], detect, "toy", folder)
    assert same(extended, index_images([photos], detect, "toy", tmp_path / "at once"))
    assert read_json(folder / "index.json")["version"] == 3 and (folder / "features.bin").exists()


def test_who_searches_while_people_are_added_sees_the_index_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(ps_nb.search.index, "PART_IMAGES", 2)
    photos, folder = make_photos(tmp_path / "photos", 4), tmp_path / "index"
    first = index_images([photos], detect, "toy", folder)
    before = search_index(first, np.ones(4), 100, score_threshold=0)
    make_photos(photos, 8, first=4)
    seen, append = [], ps_nb.search.index.append_features

    def looked(image):  # before, between and after the parts that are added
        now = load_index(folder)
        table = search_index(now, np.ones(4), 100, score_threshold=0)
        assert sorted(table["image"]) == sorted(now.images[scene].name for scene in now.detections.scene_index)
        seen.append(now)
        return detect(image)

    def appended(path, features, start):  # rows that are there and not listed
        append(path, features, start)
        assert len(load_index(path.parent)) == start

    monkeypatch.setattr(ps_nb.search.index, "append_features", appended)
    whole = index_images([photos], looked, "toy", folder)
    assert sorted({len(each.images) for each in seen}) == [4, 6, 8, 10] and len(whole.images) == 12
    pd.testing.assert_frame_equal(search_index(first, np.ones(4), 100, score_threshold=0), before)
    for then in (first, *seen):
        assert np.array_equal(then.detections.features, whole.detections.features[: len(then)])
    assert same(whole, index_images([photos], detect, "toy", tmp_path / "at once"))


def test_rows_of_a_run_that_was_cut_off_are_written_over(tmp_path):
    photos, folder = make_photos(tmp_path / "photos", 5), tmp_path / "index"
    whole = index_images([photos], detect, "toy", folder)
    with open(folder / "features.bin", "ab") as stream:
        stream.write(b"torn" * 10)
    assert same(load_index(folder), whole)
    make_photos(photos, 2, first=5)
    assert same(index_images([photos], detect, "toy", folder), index_images([photos], detect, "toy", tmp_path / "at once"))


def test_features_of_a_large_index_are_mapped_and_checked_when_it_is_extended(tmp_path, monkeypatch):
    monkeypatch.setattr(ps_nb.search.index, "CHECKED_BYTES", 0)
    photos, folder = make_photos(tmp_path / "photos", 5), tmp_path / "index"
    index = index_images([photos], detect, "toy", folder)
    kept = index.detections.features
    while not isinstance(kept, np.memmap):
        kept = kept.base
    assert kept.filename == folder / "features.bin" and not kept.flags.writeable
    content = bytearray((folder / "features.bin").read_bytes())
    content[:4] = np.float32(np.nan).tobytes()
    (folder / "features.bin").write_bytes(content)
    with pytest.raises(UserError, match="NaN or infinite, it is damaged"):
        search_index(load_index(folder), np.ones(4), engine="numpy")
    for attempt in (lambda: load_index(folder, thorough=True), lambda: index_images([photos], detect, "toy", folder)):
        with pytest.raises(UserError, match="the rows of part-00000.npz are not those"):
            attempt()


# ---------------------------------------------------------------- what is refused


def test_another_model_is_refused(tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    index_images([photos], detect, "toy", tmp_path / "index")
    before = {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}
    for attempt in (lambda: load_index(tmp_path / "index", "other"),
                    lambda: index_images([make_photos(photos, 1, first=7)], detect, "other", tmp_path / "index")):
        with pytest.raises(UserError, match="made by model toy, not by other"):
            attempt()
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "index").iterdir()}


@pytest.mark.parametrize("boxes, scores, features, message", [
    (np.ones((2, 4)), np.ones(2), [[1, 0, 0], [0, np.nan, 0]], "NaN"),
    (np.ones((2, 4)), np.ones(2), [[1, 0, 0], [0, np.inf, 0]], "NaN, infinity"),
    (np.ones((2, 4)), np.ones(2), [[1, 0, 0], [0, 0, 0]], "zero feature"),
    (np.ones((2, 4)), [1, np.nan], np.eye(2, 3), "NaN"),
    (np.full((2, 4), np.nan), np.ones(2), np.eye(2, 3), "NaN"),
    (np.ones((2, 4)), np.ones(2), np.eye(2, 5), "features of 5 numbers, the index has 3"),
    (np.ones((3, 4)), np.ones(2), np.eye(2, 3), "must be"),
    (np.ones((2, 5)), np.ones(2), np.eye(2, 3), "must be"),
    (np.ones((2, 4)), np.ones(2), np.eye(3, 3), "must be"),
    (np.ones((2, 4)), np.ones((2, 1)), np.eye(2, 3), "must be"),
    (np.ones((2, 4)), np.ones(2), np.ones(2), "must be"),
])
def test_what_a_broken_model_gives_is_refused(tmp_path, boxes, scores, features, message):
    with pytest.raises(UserError, match=message) as caught:
        checked_people("s7.png", (boxes, scores, features), 3)
    assert str(caught.value).startswith("s7.png:")
    photos = make_photos(tmp_path / "photos", 3, people=0)
    with pytest.raises(UserError, match="photos/s1.png"):
        answers = iter([(np.ones((1, 4)), [1], np.eye(1, 3)), (boxes, scores, features)])
        index_images([photos], lambda image: next(answers), "toy", tmp_path / "index")
    assert len(load_index(tmp_path / "index").images) == 1


@pytest.mark.parametrize("name, change", [
    ("part-00000.npz", lambda content: b""),
    ("part-00000.npz", lambda content: b"hello"),
    ("part-00000.npz", lambda content: content[:-1]),
    ("part-00000.npz", lambda content: content[: len(content) // 2]),
    ("part-00000.npz", lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:]),
    ("features.bin", lambda content: content[:-1]),
    ("features.bin", lambda content: content[:20] + bytes([content[20] ^ 1]) + content[21:]),
    ("index.json", lambda content: b""),
    ("index.json", lambda content: b"hello"),
    ("index.json", lambda content: content[: len(content) // 2]),
])
def test_damaged_files_are_refused(tmp_path, name, change):
    index_images([make_photos(tmp_path / "photos", 5)], detect, "toy", tmp_path / "index")
    path = tmp_path / "index" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=name) as caught:
        load_index(tmp_path / "index")
    assert "\n" not in str(caught.value)


def test_missing_foreign_and_future_indices_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not an index"):
        load_index(tmp_path / "absent")
    folder = tmp_path / "index"
    index_images([make_photos(tmp_path / "photos", 5)], detect, "toy", folder)
    manifest = read_json(folder / "index.json")
    for changed, message in [({"version": 1}, "version 1"), ({"width": 5}, "features.bin is damaged"),
                             ({"parts": []}, "lists no images"),
                             ({"parts": [manifest["parts"][0] | {"file": "../index/part-00000.npz"}]}, "not the list"),
                             ({"parts": [manifest["parts"][0] | {"people": 1}]}, "is listed with"),
                             ({"parts": [manifest["parts"][0] | {"images": 4}]}, "is listed with"),
                             ({"parts": [manifest["parts"][0] | {"file": "part-00009.npz"}]}, "part-00009.npz")]:
        (folder / "index.json").write_text(json.dumps(manifest | changed))
        with pytest.raises(UserError, match=message):
            load_index(folder)
    (folder / "index.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="not the list of an index"):
        load_index(folder)


@pytest.mark.parametrize("box", [[60, 0, 70, 20], [-9, 0, 0, 20], [0, 30, 9, 50], [5, 5, 5, 20], [9, 5, 5, 20], [5, 9, 20, 5],
                                 [0, 0, np.nan, 5], [0, 0, np.inf, 5], [0, 0, 5], [0, 0, 5, 5, 5], [59.5, 0, 80, 20]])
def test_query_boxes_that_hold_nobody_are_refused(box):
    index = random_index(0, 5, width=4)
    with pytest.raises(UserError, match="box"):
        search_box(index, "q.png", np.zeros((30, 60, 3), np.uint8), box, describe)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-50, 110, width=32)] * 4))
def test_a_cut_query_box_is_inside(box):
    try:
        x1, y1, x2, y2 = query_box(box, 60, 30)
    except UserError:
        return
    assert 0 <= x1 < x2 <= 60 and 0 <= y1 < y2 <= 30
    assert x1 >= box[0] and y1 >= box[1] and x2 <= box[2] and y2 <= box[3]


@pytest.mark.parametrize("feature, message", [(np.ones(5), "has 5 numbers, those of the index 8"), (np.zeros(8), "zero"),
                                              (np.full(8, np.nan), "NaN"), ([np.inf] + [0] * 7, "infinite")])
def test_query_features_that_cannot_be_compared_are_refused(feature, message):
    with pytest.raises(UserError, match=message):
        search_index(random_index(0, 9), feature)


@pytest.mark.parametrize("options, message", [(dict(top=0), "top 0"), (dict(engine="annoy"), "engine 'annoy'")])
def test_options_that_are_not_offered_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        search_index(random_index(0, 9), np.ones(8), **options)


# ---------------------------------------------------------------- searching


def literal_search(index, feature, top, best_per_image, score_threshold):
    "The definition, one person at a time."
    people = index.detections
    entries = [(-np.float32(similarity), row) for row, similarity in enumerate(people.features @ feature)
               if people.scores[row] >= score_threshold]
    seen, answer = set(), []
    for similarity, row in sorted(entries):
        scene = people.scene_index[row]
        if not (best_per_image and scene in seen):
            seen.add(scene)
            answer.append((row, -similarity))
    return answer[:top]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 30), st.booleans(), st.sampled_from([0.0, 0.5, 0.9, 2.0]))
def test_search_agrees_with_its_definition(seed, images, top, best_per_image, score_threshold):
    index = random_index(seed, images)
    if len(index) == 0:
        return
    feature = index.detections.features[0]
    feature = feature / np.linalg.norm(feature)
    table = search_index(index, feature, top, best_per_image, score_threshold, engine="numpy")
    expected = literal_search(index, feature, top, best_per_image, score_threshold)
    assert table["image"].tolist() == [index.images[index.detections.scene_index[row]].name for row, _ in expected]
    assert np.allclose(table["similarity"], [similarity for _, similarity in expected], atol=2e-6)
    assert table["rank"].tolist() == list(range(1, len(expected) + 1))
    assert np.allclose(table[["x1", "y1", "x2", "y2"]], index.detections.boxes[[row for row, _ in expected]])
    assert (table["score"] >= score_threshold - 1e-4).all()


def test_a_gallery_of_200000_people():
    draw = np.random.default_rng(0)
    features = draw.random((200_000, 256), dtype=np.float32)
    features -= 0.5
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    query = features[123_456] + 0.01 * features[7]
    query /= np.linalg.norm(query)
    rows, similarity = nearest(features, query, 100, engine="numpy")
    assert rows[0] == 123_456 and (np.diff(similarity) <= 0).all() and len(set(rows)) == 100
    everybody = features @ query
    assert (everybody > similarity[-1]).sum() == 99
    offsets = np.arange(0, 200_001, 4)
    images = [GalleryImage(f"s{number}", f"/s{number}", -1, str(number)) for number in range(50_000)]
    index = GalleryIndex("toy", images, Detections([image.name for image in images], offsets, np.ones((200_000, 4)),
                                                   np.linspace(0, 1, 200_000), features))
    table = search_index(index, query, top=20, best_per_image=True, score_threshold=0.5, engine="numpy")
    best = np.where(index.detections.scores >= 0.5, everybody, -1).reshape(-1, 4).max(axis=1)
    assert table["image"].tolist() == [f"s{number}" for number in np.argsort(-best, kind="stable")[:20]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.lists(st.integers(0, 40), max_size=4), st.randoms())
def test_the_answers_of_any_parts_in_any_order_are_that_of_the_whole(seed, top, cuts, random):
    draw = np.random.default_rng(seed)
    features = draw.integers(-2, 3, (40, 3)).astype(np.float32)  # products are exact, and many are equal
    query = draw.integers(-2, 3, 3).astype(np.float32)
    bounds = sorted({0, 40, *cuts})
    answers = [(start + rows, similarity) for start, stop in zip(bounds, bounds[1:])
               for rows, similarity in [nearest(features[start:stop], query, top, "numpy")]]
    random.shuffle(answers)
    rows, similarity = merged(answers, top)
    expected = np.argsort(-(features @ query), kind="stable")[:top]
    assert rows.tolist() == expected.tolist() and similarity.tolist() == (features @ query)[expected].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_shards_are_everybody_once_and_begin_at_blocks(people, count):
    shards = shard_rows(people, count)
    assert [start for start, _ in shards] + [people] == [0] * bool(shards) + [stop for _, stop in shards] or not people
    assert len(shards) <= count and all(start < stop and start % ps_nb.search.index.BLOCK_ROWS == 0 for start, stop in shards)


def test_engines_that_are_not_there_say_what_to_do(tmp_path):
    index = index_images([make_photos(tmp_path / "photos", 3)], detect, "toy", tmp_path / "index")
    with pytest.raises(UserError, match="leave out one"), chosen_engine(tmp_path / "index", index, True, "local"):
        pass
    message = r"ps_nb\[index\]" if importlib.util.find_spec("faiss") is None else "make it with search index --approximate"
    with pytest.raises(UserError, match=message), chosen_engine(tmp_path / "index", index, True):
        pass
    with chosen_engine(tmp_path / "index", index) as engine:
        assert engine == "auto"


def test_an_approximate_index_serves_people_who_were_added_later(tmp_path):
    pytest.importorskip("faiss")
    photos, folder = make_photos(tmp_path / "photos", 40), tmp_path / "index"
    first = index_images([photos], detect, "toy", folder)
    assert write_approximate(folder, "toy") == len(first)
    make_photos(photos, 4, first=40)
    index = index_images([photos], detect, "toy", folder)
    query = index.detections.features[-1]
    with chosen_engine(folder, index, approximate=True) as engine:
        rows, similarity = engine(query, 5)
        assert rows[0] in np.flatnonzero(index.detections.features @ query >= 1 - 1e-6)
        np.testing.assert_allclose(similarity, (index.detections.features @ query)[rows], rtol=0, atol=1e-6)
        tables = [search_index(index, query, 200, score_threshold=0, engine=each) for each in (engine, "auto")]
    pd.testing.assert_frame_equal(*tables, atol=1e-5)  # so few cells are all visited
    (folder / "approximate.faiss").write_bytes(b"hello")
    with pytest.raises(UserError, match="approximate.faiss is damaged"), chosen_engine(folder, index, approximate=True):
        pass


def test_two_workers_of_a_cluster_answer_as_one_machine(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    folder, draw = tmp_path / "index", np.random.default_rng(0)
    features = draw.standard_normal((3 * 2**16 + 5, 16)).astype(np.float32)
    found = np.ones((len(features), 4)), np.ones(len(features)), features
    Image.new("RGB", (9, 9)).save(tmp_path / "s.png")
    index = index_images([tmp_path / "s.png"], lambda image: found, "toy", folder)
    plain = search_index(index, features[7], 100)
    with chosen_engine(folder, index, cluster="local") as engine:
        pd.testing.assert_frame_equal(search_index(index, features[7], 100, engine=engine), plain)
        (folder / "features.bin").rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match="is not on every machine") as caught:
            engine(features[7], 5)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed: pip install ps_nb[index]")
@pytest.mark.parametrize("best_per_image", [False, True])
def test_faiss_gives_the_same_people(best_per_image):
    index = random_index(3, 400)
    feature = np.random.default_rng(1).standard_normal(8)
    tables = [search_index(index, feature, 25, best_per_image, 0.3, engine) for engine in ("numpy", "faiss", "auto")]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("faiss") is not None, reason="faiss is installed here")
def test_without_faiss_it_is_named_and_numpy_serves():
    index = random_index(3, 40)
    with pytest.raises(UserError, match=r"ps_nb\[index\]"):
        search_index(index, np.ones(8), engine="faiss")
    pd.testing.assert_frame_equal(search_index(index, np.ones(8)), search_index(index, np.ones(8), engine="numpy"))


def test_faiss_is_called_as_it_is_documented(monkeypatch):
    "A stand-in with the documented signature, for machines without faiss."
    calls = []

    def knn(xq, xb, k, metric):
        assert metric == "inner product" and xq.dtype == xb.dtype == np.float32 and xq.flags.c_contiguous and k <= len(xb)
        calls.append(k)
        similarity = xq @ xb.T
        rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarity, rows, axis=1), rows

    stand_in = types.ModuleType("faiss")
    stand_in.knn, stand_in.METRIC_INNER_PRODUCT = knn, "inner product"
    stand_in.__spec__ = importlib.util.spec_from_loader("faiss", loader=None)
    monkeypatch.setitem(sys.modules, "faiss", stand_in)
    index = random_index(3, 400)
    feature = np.random.default_rng(1).standard_normal(8)
    for best_per_image in (False, True):
        plain = search_index(index, feature, 25, best_per_image, 0.3, "numpy")
        assert calls == []
        pd.testing.assert_frame_equal(search_index(index, feature, 25, best_per_image, 0.3, "auto"), plain)
        pd.testing.assert_frame_equal(search_index(index, feature, 10**6, best_per_image, 0.3, "faiss").head(25), plain)
        assert len(calls) >= 2
        calls.clear()


def test_a_length_does_not_matter():
    index = random_index(5, 40)
    feature = np.random.default_rng(2).standard_normal(8)
    pd.testing.assert_frame_equal(search_index(index, feature), search_index(index, 1000 * feature))


# ---------------------------------------------------------------- results


def test_results_say_the_same_in_every_format_and_every_time(tmp_path):
    photos = make_photos(tmp_path / "photos, mine", 6)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    image = np.asarray(Image.open(photos / "s3.png"))
    result = search_box(index, "s3.png", image, [0, 5, 8, 25], describe, top=4, score_threshold=0.0)
    assert result.people["image"][0] == "photos, mine/s3.png" and result.people["similarity"][0] == 1
    for folder in ("one", "two"):
        write_search(result, tmp_path / folder, draw_search(result, image, index))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["search.csv", "search.json", "search.png"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "one" / "search.csv"), result.people, check_dtype=False)
    written = read_json(tmp_path / "one" / "search.json")
    assert written["gallery"] == {"model": "toy", "images": 6, "people": len(index), "complete": True}
    assert [row["image"] for row in written["people"]] == result.people["image"].tolist()
    assert [row["box"] for row in written["people"]] == result.people[["x1", "y1", "x2", "y2"]].to_numpy().tolist()
    assert Image.open(tmp_path / "one" / "search.png").format == "PNG"


def test_nobody_found_is_a_result_too(tmp_path):
    photos = make_photos(tmp_path / "photos", 3)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    image = np.zeros((30, 60, 3), np.uint8)
    result = search_box(index, "q.png", image, [0, 5, 8, 25], describe, score_threshold=1.5)
    write_search(result, tmp_path / "out", draw_search(result, image, index))
    assert read_json(tmp_path / "out" / "search.json")["people"] == []
    assert (tmp_path / "out" / "search.csv").read_text() == "rank,similarity,image,x1,y1,x2,y2,score\n"


def test_a_photograph_that_is_gone_is_named(tmp_path):
    photos = make_photos(tmp_path / "photos", 3)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    image = np.zeros((30, 60, 3), np.uint8)
    result = search_box(index, "q.png", image, [0, 5, 8, 25], describe, score_threshold=0)
    (photos / "s1.png").unlink()
    lost = {}
    assert draw_search(result, image, index, lost) is not None
    assert list(lost) == ["photos/s1.png"] and "s1.png" in lost["photos/s1.png"]


def test_a_network_finds_again_what_it_found(tmp_path):
    seed_everything(0)
    detector = DetectorSettings(backbone="resnet18", anchor_sizes=(24.0, 48.0), anchor_ratios=(2.5,), test_candidates=100,
                                test_proposals=20, region_size=(8, 4), feature_size=32, score_threshold=0.0)
    searcher, size = PersonSearcher(detector), InputSize(96, 160)
    photos = make_photos(tmp_path / "photos", 3)
    model = model_fingerprint(searcher)
    index = index_images([photos], lambda image: detect_image(searcher, image, size), model, tmp_path / "index")
    assert len(index) > 0 and index.detections.features.shape[1] == 32
    row = int(np.argmax(np.prod(index.detections.boxes[:, 2:] - index.detections.boxes[:, :2], axis=1)))
    image = np.asarray(Image.open(photos / f"s{index.detections.scene_index[row]}.png"))
    result = search_box(load_index(tmp_path / "index", model), "query", image, index.detections.boxes[row],
                        lambda image, boxes: embed_boxes(searcher, image, boxes, size), score_threshold=0)
    best = result.people.iloc[0]
    assert best["similarity"] > 0.9999 and best["image"] == index.images[index.detections.scene_index[row]].name


# ---------------------------------------------------------------- one's own photographs


@pytest.mark.parametrize("folder", ["photos", "copies"])
def test_the_query_image_does_not_answer(tmp_path, folder):
    photos = make_photos(tmp_path / "photos", 6)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    make_photos(tmp_path / "copies", 6)
    query = tmp_path / folder / "s3.png"
    image = np.asarray(Image.open(query))
    own = search_box(index, query, image, [0, 5, 8, 25], describe, score_threshold=0, keep_own=True)
    others = search_box(index, query, image, [0, 5, 8, 25], describe, score_threshold=0)
    assert own.people["image"][0] == "photos/s3.png" and own.settings["left_out"] == []
    assert "photos/s3.png" not in set(others.people["image"]) and others.settings["left_out"] == ["photos/s3.png"]
    rest = own.people[own.people["image"] != "photos/s3.png"].drop(columns="rank").reset_index(drop=True)
    pd.testing.assert_frame_equal(others.people.drop(columns="rank").head(len(rest)), rest)


def test_a_second_of_a_video_answers_once(tmp_path):
    index = random_index(1, 20)
    images = [GalleryImage(f"walk.mp4#{number}", "/walk.mp4", number, f"w#{number}", number / 4) for number in range(20)]
    index = GalleryIndex("toy", images, index.detections)
    table = search_index(index, np.ones(8), 20, best_per_image=True, score_threshold=0)
    seconds = [int(name.partition("#")[2]) // 4 for name in table["image"]]
    assert len(seconds) == len(set(seconds)) == 5


def test_an_index_may_be_moved_with_its_photographs(tmp_path):
    photos = make_photos(tmp_path / "one" / "photos", 3)
    index_images([photos], detect, "toy", tmp_path / "one" / "index")
    (tmp_path / "one").rename(tmp_path / "two")
    index = load_index(tmp_path / "two" / "index")
    assert all(os.path.exists(image.path) for image in index.images)
    (tmp_path / "two" / "photos").rename(tmp_path / "holiday")
    assert all(os.path.exists(image.path) for image in moved(load_index(tmp_path / "two" / "index"), tmp_path / "holiday").images)
    with pytest.raises(UserError, match="none of the 3 images"):
        moved(index, tmp_path / "two")


def test_a_folder_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"hello")
    with pytest.raises(UserError, match="none of the 1 files can be read"):
        index_images([tmp_path / "photos"], detect, "toy", tmp_path / "index")
    with pytest.raises(UserError, match="has no images yet"):
        search_index(load_index(tmp_path / "index"), np.ones(4))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    index_images([make_photos(folder / "photos", 5)], detect, "toy", folder / "index")
    return folder / "index", read_json(folder / "index" / "index.json")


@settings(max_examples=80, deadline=None)
@given(key=st.sampled_from([None, "version", "model", "width", "complete", "parts", "skipped", "file", "images", "people",
                            "checksum", "features"]), value=JSON)
def test_any_json_value_in_the_list_is_one_line_or_works(whole, key, value):
    folder, manifest = whole
    part = manifest["parts"][0]
    changed = value if key is None else manifest | ({key: value} if key in manifest else {"parts": [part | {key: value}]})
    (folder / "index.json").write_text(json.dumps(changed))
    try:
        assert len(load_index(folder).images) in (0, 5)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("key, value", [("counts", np.array(5)), ("counts", np.array([-1, 2, 0, 0, 0])), ("name", np.arange(5)),
                                        ("frame", np.zeros(4, int)), ("boxes", np.zeros((3, 5))),
                                        ("scores", np.array(["a"])), ("second", np.zeros((5, 1)))])
def test_odd_arrays_of_a_part_are_one_line(tmp_path, key, value):
    index_images([make_photos(tmp_path / "photos", 5)], detect, "toy", tmp_path / "index")
    path, manifest = tmp_path / "index" / "part-00000.npz", read_json(tmp_path / "index" / "index.json")
    with np.load(path) as stored:
        np.savez(path, **dict(stored) | {key: value})
    manifest["parts"][0]["checksum"] = ps_nb.search.index.file_checksum(path)
    (tmp_path / "index" / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="part-00000.npz"):
        load_index(tmp_path / "index")


@pytest.mark.parametrize("name", ["caf\udce9 $x_$.png", "a 'quoted\" and\nbroken, name.png"])
def test_names_of_every_kind_are_drawn_and_written(tmp_path, name):
    photos = make_photos(tmp_path / "photos", 2)
    (photos / "s1.png").rename(photos / name)
    index = index_images([photos], detect, "toy", tmp_path / "index")
    image = np.asarray(Image.open(photos / name))
    result = search_box(index, photos / name, image, [0, 5, 8, 25], describe, score_threshold=0, keep_own=True)
    assert result.people["image"][0] == f"photos/{name}"
    write_search(result, tmp_path / "out", draw_search(result, image, index))
    assert read_json(tmp_path / "out" / "search.json")["people"][0]["image"] == f"photos/{name}"
    assert ps_nb.search.index.printable(name).encode() and "\n" not in ps_nb.search.index.printable(name)
