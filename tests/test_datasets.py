"""Readers and writers of data sets: official layouts built by hand, round trips, bad input, and real files where they are."""

import os
import tempfile
import warnings
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from ps_nb.core import UserError, read_json, write_json
from ps_nb.data import cuhk_sysu
from ps_nb.data.checks import check_search_set
from ps_nb.data.cuhk_sysu import read_cuhk_protocol, read_cuhk_sysu, write_cuhk_sysu
from ps_nb.data.files import image_sizes, natural_key, place_images, read_mat, write_mat
from ps_nb.data.formats import (
    FORMATS,
    choose_queries,
    read_coco,
    read_coco_scenes,
    read_folder,
    read_mot,
    read_search_set,
    recognised_format,
    write_coco,
)
from ps_nb.data.prw import multi_view_protocol, prw_boxes, read_prw, read_query_info, standard_protocol, write_prw
from ps_nb.data.scenes import Protocol, Query, Scene, SearchSet, split_statistics

real_data = Path(os.environ.get("PS_NB_TEST_DATA", "absent"))
needs_real_data = pytest.mark.skipif(not real_data.is_dir(), reason="PS_NB_TEST_DATA names no folder of real data")
round_trip = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@cache
def picture(width=640, height=480, kind="JPEG"):
    stream = BytesIO()
    Image.new("L", (width, height)).save(stream, kind)
    return stream.getvalue()


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture() if content is None else content)
    return path


# ---------------------------------------------------------------- CUHK-SYSU, built with scipy alone


def structs(fields, rows):
    array = np.empty((1, len(rows)), [(name, object) for name in fields.split()])
    for i, row in enumerate(rows):
        array[0, i] = row
    return array


def cells(items):
    array = np.empty((len(items), 1), object)
    for i, item in enumerate(items):
        array[i, 0] = item
    return array


def box(*numbers):
    return np.array([numbers], np.uint8 if max(numbers) < 256 else np.uint16)


EMPTY = np.zeros((1, 0))
PEOPLE = {  # image -> boxes as left, top, width, height
    "s1.jpg": [(10, 20, 30, 90), (200, 60, 100, 180)],
    "s2.jpg": [(300, 60, 100, 180), (0, 5, 0, 40)],  # the second has no width
    "s3.jpg": [(12, 22, 30, 90), (50, 50, 40, 90)],
    "s4.jpg": [(7, 7, 20, 60)],
    "s5.jpg": [(250, 60, 100, 180), (5, 5, 30, 80)],
    "s6.jpg": [(260, 60, 90, 170), (8, 8, 30, 80)],
    "s10.jpg": [(100, 40, 50, 120), (20, 10, 50, 120)],
    "s11.jpg": [(1, 1, 5, 9)],
}
POOL = ["s10.jpg", "s5.jpg", "s6.jpg", "s11.jpg"]


def train_table(first=(10, 20, 30, 90)):
    def person(name, *scenes):
        return structs("idname nAppear scene", [(name, len(scenes), structs("imname idlocate ishard", [
            (image, box(*at), 0) for image, at in scenes]))])

    return cells([person("p12", ("s1.jpg", first), ("s3.jpg", (12, 22, 30, 90))),
                  person("p3", ("s1.jpg", (200, 60, 100, 180)), ("s2.jpg", (300, 60, 100, 180)))])


def protocol_table(rows, extra=()):
    return structs(" ".join(["Query Gallery", *extra]), [
        (structs("imname idlocate ishard idname", [(image, box(*at), 0, person)]),
         structs("imname idlocate ishard", [(name, box(*where), 0) if where else (name, EMPTY, EMPTY) for name, where in shown]),
         *[1] * len(extra)) for image, at, person, shown in rows])


QUERIES = [
    # the same scene twice with two boxes of one person, and the query's own scene
    ("s5.jpg", (250, 60, 100, 180), "p7", [("s10.jpg", (100, 40, 50, 120)), ("s10.jpg", (20, 10, 50, 120)),
                                           ("s5.jpg", (250, 60, 100, 180)), ("s11.jpg", None)]),
    ("s6.jpg", (8, 8, 30, 80), "p40", [("s5.jpg", (5, 5, 30, 80)), ("s10.jpg", None), ("s11.jpg", None), ("s6.jpg", None)]),
]


@pytest.fixture
def cuhk(tmp_path):
    images = structs("imname nAppear box", [
        (name, len(boxes), structs("idlocate ishard", [(box(*each), 0) for each in boxes])) for name, boxes in PEOPLE.items()])
    test = tmp_path / "annotation/test"
    (test / "train_test").mkdir(parents=True)
    (test / "subset").mkdir()
    savemat(tmp_path / "annotation/Images.mat", {"Img": images})
    savemat(tmp_path / "annotation/pool.mat", {"pool": cells(POOL)})
    savemat(test / "train_test/Train.mat", {"Train": train_table()})
    for name in ("TestG50", "TestG100"):
        savemat(test / f"train_test/{name}.mat", {name: protocol_table(QUERIES)})
    savemat(test / "subset/Occlusion.mat", {"Occlusion1": protocol_table(QUERIES[:1], ["occlusion"])})
    savemat(test / "subset/Resolution.mat", {"Test_Size": protocol_table(QUERIES[1:])})
    for name in PEOPLE:
        put(tmp_path / "Image/SSM" / name)
    return tmp_path


def test_cuhk_official_layout(cuhk):
    found = read_cuhk_sysu(cuhk)
    assert list(found.protocols) == ["TestG50", "TestG100", "Occlusion", "Resolution"]
    assert [scene.name for scene in found.train] == ["s1.jpg", "s2.jpg", "s3.jpg", "s4.jpg"]
    assert [scene.name for scene in found.gallery] == POOL
    assert [scene.ids.tolist() for scene in found.train] == [[1, 0], [0], [1, -1], [-1]]  # p3 comes before p12
    assert [scene.ids.tolist() for scene in found.gallery] == [[0, 0], [0, 1], [-1, 1], [-1]]
    assert found.train[0].boxes[1].tolist() == [200, 60, 300, 240]  # 200 + 100 in uint8
    assert (found.train[0].width, found.train[0].height, found.train_persons) == (640, 480, 2)
    first, second = found.protocol("TestG100").queries
    assert first.positives.tolist() == [0, 0, 1] and first.truth[:2].tolist() == [[100, 40, 150, 160], [20, 10, 70, 130]]
    assert second.gallery(4).tolist() == [1, 0, 3, 2] and second.person == 1
    assert [query.person for query in found.protocol("Resolution").queries] == [1]
    assert found.train[0].path.read_bytes() == picture()


def test_cuhk_reads_only_the_protocols_asked_for(cuhk):
    (cuhk / "annotation/test/train_test/TestG100.mat").write_bytes(b"broken")
    found = read_cuhk_sysu(cuhk, protocols=["Occlusion"])
    assert list(found.protocols) == ["TestG50", "Occlusion"]
    with pytest.raises(UserError, match="TestG100.mat is not a readable MATLAB file"):
        read_cuhk_sysu(cuhk)
    with pytest.raises(UserError, match="no protocol 'TestG7'"):
        read_cuhk_sysu(cuhk, protocols=["TestG7"])


def test_cuhk_protocols_are_read_once_and_again_when_they_change(cuhk, tmp_path, monkeypatch):
    plain = read_cuhk_sysu(cuhk)
    assert read_cuhk_sysu(cuhk, kept=tmp_path / "kept").fingerprint() == plain.fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(cuhk_sysu, "printed_queries", lambda path: pytest.fail(f"{path} is read again"))
        assert read_cuhk_sysu(cuhk, kept=tmp_path / "kept").fingerprint() == plain.fingerprint()
    savemat(cuhk / "annotation/test/train_test/TestG100.mat", {"TestG100": protocol_table(QUERIES[:1])})
    again = read_cuhk_sysu(cuhk, kept=tmp_path / "kept")
    assert len(again.protocol("TestG100")) == 1 and again.fingerprint() == read_cuhk_sysu(cuhk).fingerprint()


def test_damage_to_a_kept_protocol_is_one_line(cuhk, tmp_path):
    read_cuhk_sysu(cuhk, kept=tmp_path / "kept")
    file = min((tmp_path / "kept").glob("protocol-*.npz"))
    whole, draw = file.read_bytes(), np.random.default_rng(0)
    for place in draw.integers(0, len(whole), 60):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_cuhk_sysu(cuhk, kept=tmp_path / "kept")  # where the byte does not matter
        except UserError as error:
            assert "is damaged" in str(error) and "\n" not in str(error)


def test_cuhk_missing_gallery_size_is_not_offered(cuhk):
    (cuhk / "annotation/test/train_test/TestG50.mat").unlink()
    assert list(read_cuhk_sysu(cuhk).protocols) == ["TestG100", "Occlusion", "Resolution"]
    (cuhk / "annotation/test/train_test/TestG100.mat").unlink()
    with pytest.raises(UserError, match="holds no TestG file"):
        read_cuhk_sysu(cuhk)


@pytest.mark.parametrize("file", ["Image/SSM", "annotation/Images.mat", "annotation/pool.mat",
                                  "annotation/test/train_test/Train.mat"])
def test_cuhk_missing_file_is_named(cuhk, file):
    (cuhk / file).rename(cuhk / "away")
    with pytest.raises(UserError, match=file) as error:
        read_cuhk_sysu(cuhk)
    assert "\n" not in str(error.value) and "authors" in str(error.value)


@pytest.mark.parametrize("file", ["Images.mat", "pool.mat", "test/train_test/Train.mat", "test/subset/Occlusion.mat"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "foreign", "other variable"])
def test_cuhk_broken_file_is_named(cuhk, file, damage):
    path = cuhk / "annotation" / file
    if damage == "other variable":
        savemat(path, {"other": np.eye(3)})
    else:
        content = path.read_bytes()
        path.write_bytes({"empty": b"", "truncated": content[:len(content) // 2], "foreign": b"<html>" * 99}[damage])
    with pytest.raises(UserError, match=path.name) as error:
        read_cuhk_sysu(cuhk)
    assert "\n" not in str(error.value)


def test_cuhk_absent_images_are_named(cuhk):
    absent = [("s99.jpg", (1, 1, 5, 5), "p7", [("s5.jpg", (5, 5, 30, 80))])]
    names = {
        "test/train_test/TestG50.mat": {"TestG50": protocol_table(absent)},
        "pool.mat": {"pool": cells([*POOL, "s99.jpg"])},
    }
    for file, content in names.items():
        kept = (cuhk / "annotation" / file).read_bytes()
        savemat(cuhk / "annotation" / file, content)
        with pytest.raises(UserError, match="'s99.jpg'"):
            read_cuhk_sysu(cuhk)
        (cuhk / "annotation" / file).write_bytes(kept)
    # an image of the training split is no gallery image
    rows = [("s5.jpg", (250, 60, 100, 180), "p7", [("s1.jpg", (10, 20, 30, 90))])]
    savemat(cuhk / "annotation/test/train_test/TestG50.mat", {"TestG50": protocol_table(rows)})
    with pytest.raises(UserError, match="query 0 names 's1.jpg'"):
        read_cuhk_sysu(cuhk)


def test_cuhk_unreadable_images_are_counted(cuhk):
    (cuhk / "Image/SSM/s2.jpg").write_bytes(b"no image")
    (cuhk / "Image/SSM/s4.jpg").unlink()
    with pytest.raises(UserError, match="2 of 4 images are missing or are no images, first s2.jpg, s4.jpg"):
        read_cuhk_sysu(cuhk)


def test_image_in_another_case_is_told(cuhk):
    (cuhk / "Image/SSM/s2.jpg").rename(cuhk / "Image/SSM/S2.JPG")
    with pytest.raises(UserError, match="first s2.jpg: the folder holds S2.JPG, so spell the files as the annotations do"):
        image_sizes(cuhk / "Image/SSM", ["s1.jpg", "s2.jpg"])


def test_images_may_be_links_and_have_odd_names(tmp_path):
    name = "it's \"the 2nd\" day.jpg"
    kept = put(tmp_path / "archive" / "1.jpg")
    for each in (name, "s2.jpg"):
        (tmp_path / "to/Image/SSM").mkdir(parents=True, exist_ok=True)
        (tmp_path / "to/Image/SSM" / each).symlink_to(kept)
    place_images({name: kept}, tmp_path / "to/Image/SSM")
    one, two = scene(name, path=tmp_path / "to/Image/SSM"), scene("s2.jpg", path=tmp_path / "to/Image/SSM")
    protocol = Protocol("TestG1", [Query(0, one.boxes[0], 0, [1], two.boxes, [])])
    write_cuhk_sysu(SearchSet("x", [], [one, two], {"TestG1": protocol}), tmp_path / "to")
    found = read_cuhk_sysu(tmp_path / "to")
    assert [each.name for each in found.gallery] == [name, "s2.jpg"] and (tmp_path / "to/Image/SSM" / name).is_symlink()
    assert kept.read_bytes() == picture()


def test_mat_of_the_newer_format_is_told_how_to_save(tmp_path):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
    (tmp_path / "Images.mat").write_bytes(header.ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(UserError, match="Images.mat is a MATLAB 7.3 file .HDF5.: load it in MATLAB and save it again .* -v7"):
        read_mat(tmp_path / "Images.mat")


def test_mat_bytes_do_not_tell_the_time(tmp_path, monkeypatch):
    written = []
    for day in ("Mon Jan  1 00:00:00 2024", "Tue Feb  2 00:00:00 2025"):
        monkeypatch.setattr("time.asctime", lambda *_, day=day: day)
        write_mat(tmp_path / "a.mat", pool=cells(["s1.jpg"]), box=box(1, 2, 3, 400))
        written.append((tmp_path / "a.mat").read_bytes())
    assert written[0] == written[1] and written[0].startswith(b"MATLAB 5.0 MAT-file")
    assert loadmat(tmp_path / "a.mat")["box"].tolist() == [[1, 2, 3, 400]]


def test_cuhk_box_without_area_in_protocol(cuhk):
    rows = [("s5.jpg", (250, 60, 0, 180), "p7", [("s10.jpg", (100, 40, 50, 120))])]
    savemat(cuhk / "annotation/test/train_test/TestG50.mat", {"TestG50": protocol_table(rows)})
    with pytest.raises(UserError, match="query 0 has a box without area"):
        read_cuhk_sysu(cuhk)


def test_cuhk_name_without_box_is_a_warning(cuhk):
    savemat(cuhk / "annotation/test/train_test/Train.mat", {"Train": train_table(first=(11, 20, 30, 90))})
    with pytest.warns(UserWarning, match="Train.mat: 1 of 4 named boxes"):
        found = read_cuhk_sysu(cuhk)
    assert found.train[0].ids.tolist() == [-1, 0]


def test_cuhk_scene_without_people_is_kept_and_reported(cuhk):
    images = loadmat(cuhk / "annotation/Images.mat")["Img"]
    images[0, 3]["box"][0, 0]["idlocate"][...] = (7, 7, 0, 60)
    images[0, 7]["box"] = np.zeros((0, 0))
    savemat(cuhk / "annotation/Images.mat", {"Img": images})
    found = read_cuhk_sysu(cuhk)
    assert [len(scene) for scene in found.train] == [2, 1, 2, 0] and len(found.gallery[3]) == 0
    report = check_search_set(found)
    assert "1 training scenes show no person: s4.jpg" in report and "1 gallery scenes show no person: s11.jpg" in report


def test_renamed_subset_file_is_read(cuhk, tmp_path):
    test = cuhk / "annotation/test"
    renamed = tmp_path / "TestG100.mat"
    renamed.write_bytes((test / "subset/Occlusion.mat").read_bytes())
    found = read_cuhk_protocol(renamed)
    assert list(found.protocols) == ["TestG100"] and len(found.protocol("TestG100")) == 1
    assert [scene.name for scene in found.gallery] == ["s5.jpg", "s10.jpg", "s11.jpg"]
    assert (found.gallery[0].width, found.gallery[0].height) == (350, 240)


def test_cuhk_written_types(cuhk, tmp_path):
    write_cuhk_sysu(read_cuhk_sysu(cuhk), tmp_path / "written", occluded=[0.4])
    annotation = tmp_path / "written/annotation"
    table = loadmat(annotation / "test/train_test/TestG50.mat")["TestG50"]
    assert table.shape == (1, 2) and table.dtype.names == ("Query", "Gallery")
    asked, shown = table[0, 0]["Query"], table[0, 0]["Gallery"]
    assert asked.dtype.names == ("imname", "idlocate", "ishard", "idname") and shown.dtype.names == asked.dtype.names[:3]
    assert shown.shape == (1, 4)
    assert shown[0, 3]["idlocate"].shape == shown[0, 3]["ishard"].shape == (1, 0) and shown[0, 3]["idlocate"].dtype == np.float64
    assert shown[0, 0]["idlocate"].dtype == np.uint8 and asked[0, 0]["idlocate"].dtype == np.uint8
    assert loadmat(annotation / "test/subset/Occlusion.mat")["Occlusion1"].dtype.names == ("Query", "Gallery", "occlusion")
    assert loadmat(annotation / "test/subset/Occlusion.mat")["Occlusion1"][0, 0]["occlusion"].item() == 0.4
    assert loadmat(annotation / "test/subset/Resolution.mat")["Test_Size"].dtype.names == ("Query", "Gallery")
    train = loadmat(annotation / "test/train_test/Train.mat")["Train"]
    assert train.shape == (2, 1) and train[0, 0].dtype.names == ("idname", "nAppear", "scene") and train[0, 0].shape == (1, 1)
    images = loadmat(annotation / "Images.mat")["Img"]
    assert images.dtype.names == ("imname", "nAppear", "box") and images[0, 0]["box"].dtype.names == ("idlocate", "ishard")
    assert loadmat(annotation / "pool.mat")["pool"].shape == (4, 1)
    assert read_cuhk_sysu(tmp_path / "written").fingerprint() == read_cuhk_sysu(cuhk).fingerprint()


def scene(name, boxes=((5, 5, 30, 80),), ids=(0,), camera=None, path=None):
    return Scene(name, Path(path or "absent") / name, 640, 480, np.array(boxes, float).reshape(-1, 4), ids, camera)


def test_cuhk_writer_refuses_what_the_layout_cannot_hold(tmp_path):
    put(tmp_path / "s1.jpg"), put(tmp_path / "s2.jpg")
    one, two = scene("s1.jpg", path=tmp_path), scene("s2.jpg", path=tmp_path)
    protocol = {"TestG1": Protocol("TestG1", [Query(0, one.boxes[0], 0, [1], two.boxes, [])])}
    good = SearchSet("x", [], [one, two], protocol)
    write_cuhk_sysu(good, tmp_path / "good")
    write_cuhk_sysu(good, tmp_path / "good")  # over itself
    other = replace(good, protocols={"TestG2": protocol["TestG1"], "Occlusion": protocol["TestG1"]})
    with pytest.raises(UserError, match="TestG1.mat is a protocol of another set"):
        write_cuhk_sysu(other, tmp_path / "good")
    with pytest.raises(UserError, match="2 of occlusion for 1 queries"):
        write_cuhk_sysu(other, tmp_path / "other", occluded=[1, 1])
    bad = {
        "no protocol named TestG": replace(good, protocols={}),
        "in training and in the gallery": replace(good, train=[one]),
        "same box": replace(good, gallery=[one, replace(two, boxes=[[1, 1, 9, 9]] * 2, ids=[0, -1])]),
        "outside its image": replace(good, gallery=[one, replace(two, boxes=[[-3, 1, 9, 9]])]),
        "no image at": replace(good, gallery=[one, replace(two, name="s3.jpg", path=Path("nowhere"))]),
        "leads out of": replace(good, gallery=[one, replace(two, name="../s3.jpg")]),
    }
    for message, search_set in bad.items():
        with pytest.raises(UserError, match=message):
            write_cuhk_sysu(search_set, tmp_path / "bad")


def test_cuhk_writer_copies_images_and_rounds_boxes(tmp_path):
    put(tmp_path / "from/s1.jpg"), put(tmp_path / "from/s2.jpg")
    one = scene("s1.jpg", [(5.4, 5.6, 30.2, 80.2)], path=tmp_path / "from")
    two = scene("s2.jpg", [(500.4, 5.6, 530.2, 80.2)], path=tmp_path / "from")
    protocol = Protocol("TestG1", [Query(0, one.boxes[0], 0, [1], two.boxes, [])])
    write_cuhk_sysu(SearchSet("x", [], [one, two], {"TestG1": protocol}), tmp_path / "to")
    found = read_cuhk_sysu(tmp_path / "to")
    assert (tmp_path / "to/Image/SSM/s2.jpg").read_bytes() == picture()
    assert found.gallery[1].boxes.tolist() == [[500, 6, 530, 80]] == found.protocol("TestG1").queries[0].truth.tolist()
    assert [each.ids.tolist() for each in found.gallery] == [[0], [0]] and found.train == []


# ---------------------------------------------------------------- PRW, built with scipy alone


TABLES = {
    "c1s1_000001.jpg": [[932, 10.5, 20.25, 30, 90], [-2, 100, 20, 30.5, 90]],
    "c2s1_000026.jpg": [[932, 10.5, 20, 30, 90], [3, 600, 20, 80, 90]],  # ends beyond the image
    "c1s2_000051.jpg": [[7, -12, 20, 50, 90], [932, 1, 2, 3, 4], [50, 300, 20, 30, 90]],  # starts left of it
    "c2s2_000076.jpg": [[7, 10, 20, 50, 90], [7, 200, 20, 50, 90]],  # one identity twice
    "c1s2_000101.jpg": [[7, 30, 20, 50, 90], [50, 310, 20, 30, 90]],
    "c3s2_000126.jpg": [[-2, 30, 20, 50, 90]],
}
TRAIN, TEST = list(TABLES)[:2], list(TABLES)[2:]


@pytest.fixture(params=["\n", "\r\n"], ids=["LF", "CRLF"])
def prw(tmp_path, request):
    (tmp_path / "annotations").mkdir()
    for number, (name, rows) in enumerate(TABLES.items()):
        put(tmp_path / "frames" / name)
        key = ("box_new", "anno_file", "anno_previous")[number % 3]
        savemat(tmp_path / "annotations" / f"{name}.mat", {key: np.array(rows, float)})
    for split, names in (("train", TRAIN), ("test", TEST)):
        savemat(tmp_path / f"frame_{split}.mat", {f"img_index_{split}": cells([name[:-4] for name in names])})
    lines = ["7 -12 20 50 90 c1s2_000051", "50 300 20 30 90 c1s2_000051"]
    (tmp_path / "query_info.txt").write_bytes("".join(line + request.param for line in lines).encode())
    return tmp_path


def test_prw_official_layout(prw):
    found = read_prw(prw)
    assert [each.name for each in found.train] == TRAIN and [each.name for each in found.gallery] == TEST
    assert [each.camera for each in found.gallery] == [1, 2, 1, 3]
    assert [each.ids.tolist() for each in found.train] == [[1, -1], [1, 0]]
    assert [each.ids.tolist() for each in found.gallery] == [[0, 2, 1], [0, 0], [0, 1], [-1]]
    assert found.train[0].boxes.tolist() == [[10, 20, 40, 110], [100, 20, 130, 110]]  # whole pixels
    assert found.train[1].boxes[1].tolist() == [600, 20, 680, 110]  # as long as it is printed
    assert found.gallery[0].boxes[0].tolist() == [0, 20, 50, 110]  # moved first: the box keeps its width
    standard, multi_view = found.protocol("standard").queries, found.protocol("multi-view").queries
    assert standard[0].box.tolist() == [0, 20, 38, 110]
    assert standard[0].gallery(4).tolist() == [1, 2, 3] and standard[0].distractors is None
    assert standard[0].truth.tolist() == [[10, 20, 60, 110], [30, 20, 80, 110]]  # the first of the two boxes
    assert len(multi_view) == 1 and multi_view[0].positives.tolist() == [1] and multi_view[0].distractors.tolist() == [3]
    exact = read_prw(prw, boxes="exact")
    assert exact.train[0].boxes.tolist() == [[10.5, 20.25, 40.5, 110.25], [100, 20, 130.5, 110]]
    assert exact.train[1].boxes[1].tolist() == [600, 20, 640, 110]
    assert exact.gallery[0].boxes[0].tolist() == exact.protocol("standard").queries[0].box.tolist() == [0, 20, 38, 110]
    report = check_search_set(found)
    assert "1 of 2 queries are not in protocol multi-view: one camera alone saw the person" in report
    assert "1 gallery scenes show one identity twice: c2s2_000076.jpg" in report


@pytest.mark.parametrize("file", ["frames", "annotations", "frame_train.mat", "frame_test.mat", "query_info.txt"])
def test_prw_missing_file_is_named(prw, file):
    (prw / file).rename(prw / "away")
    with pytest.raises(UserError, match=file):
        read_prw(prw)


def test_prw_broken_annotation_is_named(prw):
    path = prw / "annotations" / f"{TEST[1]}.mat"
    content = path.read_bytes()
    for damaged in (content[:50], b"", b"no mat file at all" * 20):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=path.name):
            read_prw(prw)
    for table in (np.zeros((2, 4)), np.full((1, 5), np.nan)):
        savemat(path, {"box_new": table})
        with pytest.raises(UserError, match="is not a PRW annotation"):
            read_prw(prw)
    path.unlink()
    with pytest.raises(UserError, match=path.name):
        read_prw(prw)


def test_prw_frame_without_people(prw):
    savemat(prw / "annotations" / f"{TEST[3]}.mat", {"box_new": np.zeros((0, 5))})
    assert len(read_prw(prw).gallery[3]) == 0


@pytest.mark.parametrize("line", ["7 1 2 3", "seven 1 2 3 4 c1s2_000051", "7 1 2 0 4 c1s2_000051", "7 1 2 nan 4 c1s2_000051",
                                  "7.5 1 2 3 4 c1s2_000051", "7 1 2 3 4 c1s2_000051 more", "inf 1 2 3 4 c1s2_000051"])
def test_prw_malformed_query_is_named(prw, line):
    (prw / "query_info.txt").write_text("7 1 2 3 4 c1s2_000051\n" + line + "\n")
    with pytest.raises(UserError, match="query_info.txt, line 2"):
        read_prw(prw)


def test_prw_query_of_absent_image_or_outside_it(prw):
    (prw / "query_info.txt").write_text("7 1 2 3 4 c1s1_000001\n")  # a training frame
    with pytest.raises(UserError, match="c1s1_000001.jpg"):
        read_prw(prw)
    (prw / "query_info.txt").write_text("7 700 2 3 4 c1s2_000051\n")
    with pytest.raises(UserError, match="no area in c1s2_000051.jpg"):
        read_prw(prw)


def published_prw(annotation, query):
    "Corners as NAE, SeqNet, COAT and CUCPS compute them, a number at a time."
    (x, y, w, h), (a, b, c, d) = annotation, query
    moved = [max(x, 0.0), max(y, 0.0)]
    return [int(v) for v in (*moved, moved[0] + w, moved[1] + h)], [max(int(v), 0) for v in (a, b, a + c, b + d)]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(-9, 600), st.floats(-9, 400), st.floats(10, 300), st.floats(10, 200)), min_size=1))
def test_prw_boxes_are_those_of_the_published_readers(rows):
    rows = np.array(rows).tolist()
    for row in rows:
        wanted, asked = published_prw(row, row)
        assert prw_boxes(np.array([row]), 640, 480, "published")[0].tolist() == [wanted]
        assert prw_boxes(np.array([row]), 640, 480, "published", asked=True)[0].tolist() == [asked]


def test_prw_reading_is_one_of_two(prw):
    with pytest.raises(UserError, match="boxes 'rounded' are not offered: choose one of published, exact"):
        read_prw(prw, boxes="rounded")


def test_prw_box_thinner_than_a_pixel_is_dropped(prw):
    savemat(prw / "annotations" / f"{TEST[3]}.mat", {"box_new": np.array([[5, 30.2, 20, 0.5, 90], [-2, 30, 20, 50, 90]])})
    assert read_prw(prw).gallery[3].ids.tolist() == [-1] and len(read_prw(prw, boxes="exact").gallery[3]) == 2


def test_prw_identity_is_never_cut(prw):
    savemat(prw / "annotations" / f"{TEST[3]}.mat", {"box_new": np.array([[0.7, 30, 20, 50, 90]])})
    with pytest.raises(UserError, match="identity 0.7 is no whole number"):
        read_prw(prw)


def test_prw_small_integer_boxes_do_not_overflow(prw):
    savemat(prw / "annotations" / f"{TEST[3]}.mat", {"box_new": np.array([[5, 200, 100, 100, 200]], np.uint8)})
    assert read_prw(prw).gallery[3].boxes.tolist() == [[200, 100, 300, 300]]


def test_prw_query_list_of_an_editor_and_of_one_query(prw):
    (prw / "query_info.txt").write_bytes("\ufeff7 1 2 30 40 c1s2_000051\r\n".encode())
    assert [query.person for query in read_prw(prw).protocol("standard").queries] == [0]


def test_prw_where_nobody_is_known(prw):
    for name, rows in TABLES.items():
        savemat(prw / "annotations" / f"{name}.mat", {"box_new": np.array([[-2, *row[1:]] for row in rows], float)})
    (prw / "query_info.txt").write_text("")
    found = read_prw(prw)
    assert found.train_persons == 0 and len(found.protocol("standard")) == len(found.protocol("multi-view")) == 0


def test_prw_query_without_match_stays_in_standard_and_is_reported(prw):
    (prw / "query_info.txt").write_text("7 1 2 3 4 c1s2_000051\n444 1 2 3 4 c1s2_000051\n")
    found = read_prw(prw)
    assert [len(query.positives) for query in found.protocol("standard").queries] == [2, 0]
    assert any("1 queries of standard have no match" in line and "query 1" in line for line in check_search_set(found))


def test_prw_image_names(tmp_path):
    put(tmp_path / "IMG_1.jpg")
    one = scene("IMG_1.jpg", camera=1, path=tmp_path)
    with pytest.raises(UserError, match="'IMG_1.jpg' does not name its camera"):
        write_prw(SearchSet("x", [], [one], {"standard": standard_protocol([one], [])}), tmp_path / "prw")


def test_empty_query_info(tmp_path):
    (tmp_path / "query_info.txt").write_text("\r\n\r\n")
    assert read_query_info(tmp_path / "query_info.txt") == []


# ---------------------------------------------------------------- round trips


def distinct_boxes(draw, whole):
    number = st.integers(0, 300) if whole else st.floats(0, 300, width=32)
    side = st.integers(1, 179) if whole else st.floats(1, 179, width=32)
    rows = draw(st.lists(st.tuples(number, number, side, side), max_size=4, unique=True))
    return [(x, y, x + w, y + h) for x, y, w, h in rows]


def counted(scenes, keep=None):
    "Identities counted from 0; those not in `keep` become unlabelled."
    present = sorted({int(i) for each in scenes for i in each.ids if i >= 0 and (keep is None or int(i) in keep)})
    number = {person: i for i, person in enumerate(present)}
    return [replace(each, ids=[number.get(int(i), -1) for i in each.ids]) for each in scenes], len(present)


@st.composite
def scene_lists(draw, name, whole, least, cameras=False):
    scenes = []
    for i in range(draw(st.integers(least, 5))):
        boxes = distinct_boxes(draw, whole)
        ids = [draw(st.integers(-1, 3)) for _ in boxes]
        scenes.append(scene(name(i), boxes, ids, 1 + i % 3 if cameras else None))
    return scenes


def placed(scenes, folder):
    return [replace(each, path=put(folder / each.name)) for each in scenes]


def appearances(scenes, person):
    return [(number, each) for number, own in enumerate(scenes) for each, i in zip(own.boxes, own.ids) if i == person]


@st.composite
def cuhk_sets(draw):
    train, _ = counted(draw(scene_lists(lambda i: f"s{i + 1}.jpg", True, 0)))
    gallery, persons = counted(draw(scene_lists(lambda i: f"s{i + 96}.jpg", True, 1)))
    queries = []
    for person in range(persons):
        (own, asked), *rest = appearances(gallery, person)
        positives = rest + rest[:draw(st.integers(0, 1))]  # perhaps a duplicate
        distractors = draw(st.lists(st.integers(0, len(gallery) - 1), max_size=4))  # perhaps the query's own scene
        queries.append(Query(own, asked, person, [n for n, _ in positives], [b for _, b in positives], distractors))
    protocols = {name: Protocol(name, queries[:count]) for name, count in
                 (("TestG4", persons), ("TestG11", persons), ("Occlusion", 1), ("Resolution", persons))}
    return SearchSet("cuhk-sysu", train, gallery, protocols)


@round_trip
@given(cuhk_sets())
def test_cuhk_round_trip(search_set):
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "Image/SSM"
        search_set = replace(search_set, train=placed(search_set.train, images), gallery=placed(search_set.gallery, images))
        write_cuhk_sysu(search_set, folder)
        assert read_cuhk_sysu(folder).fingerprint() == search_set.fingerprint()


@st.composite
def prw_sets(draw):
    train, _ = counted(draw(scene_lists(lambda i: f"c{1 + i % 3}s1_{i:06d}.jpg", False, 0, cameras=True)))
    gallery, _ = counted(draw(scene_lists(lambda i: f"c{1 + i % 3}s2_{i:06d}.jpg", False, 1, cameras=True)))
    people = [(number, each, int(i)) for number, own in enumerate(gallery) for each, i in zip(own.boxes, own.ids) if i >= 0]
    asked = draw(st.lists(st.sampled_from(people), max_size=5)) if people else []
    both = [standard_protocol(gallery, asked), multi_view_protocol(gallery, asked)]
    return SearchSet("prw", train, gallery, {protocol.name: protocol for protocol in both})


@round_trip
@given(prw_sets())
def test_prw_round_trip(search_set):
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "frames"
        images.mkdir()
        search_set = replace(search_set, train=placed(search_set.train, images), gallery=placed(search_set.gallery, images))
        write_prw(search_set, folder)
        assert read_prw(folder, boxes="exact").fingerprint() == search_set.fingerprint()
        for split, exact in zip((read_prw(folder).train, read_prw(folder).gallery), (search_set.train, search_set.gallery)):
            for found, own in zip(split, exact):
                whole = np.trunc(own.boxes)
                assert found.boxes.tolist() == whole[(whole[:, 2:] > whole[:, :2]).all(axis=1)].tolist()


@round_trip
@given(st.one_of(cuhk_sets(), prw_sets()))
def test_coco_round_trip(search_set):
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        search_set = replace(search_set, train=placed(search_set.train, images), gallery=placed(search_set.gallery, images))
        write_coco(search_set, folder)
        assert read_coco(folder).fingerprint() == replace(search_set, name="coco").fingerprint()


def test_multi_view_against_a_slow_literal_version():
    random = np.random.default_rng(3)
    scenes = [scene(f"c{c}s1_{i:06d}.jpg", [(k, 1, k + 9, 30) for k in range(3)], random.integers(-1, 20, 3), c)
              for i, c in enumerate(random.integers(1, 4, 12).tolist())]
    asked = [(n, own.boxes[k], int(own.ids[k])) for n, own in enumerate(scenes) for k in range(3) if own.ids[k] >= 0]
    expected = []
    for number, _, person in asked:
        others = [n for n in range(12) if scenes[n].camera != scenes[number].camera]
        matches = [n for n in others if person in scenes[n].ids]
        if matches:
            truth = [scenes[n].boxes[scenes[n].ids.tolist().index(person)].tolist() for n in matches]
            expected.append((number, matches, truth, [n for n in others if n not in matches]))
    found = [(q.scene, q.positives.tolist(), q.truth.tolist(), q.distractors.tolist())
             for q in multi_view_protocol(scenes, asked).queries]
    assert found == expected and len(found) < len(asked)


# ---------------------------------------------------------------- COCO json


def coco_root(tmp_path, change=None, **top):
    content = {"images": [{"id": 4, "file_name": "a.jpg", "width": 64, "height": 48},
                          {"id": 2, "file_name": "b.jpg", "width": 64, "height": 48}],
               "annotations": [{"id": 0, "image_id": 4, "bbox": [-1, 5, 20, 30], "person_id": 17, "category_id": 1},
                               {"id": 1, "image_id": 2, "bbox": [5, 5, 20, 30], "person_id": 17, "category_id": 1},
                               {"id": 2, "image_id": 2, "bbox": [30, 5, 20, 30], "person_id": -2, "category_id": 1},
                               {"id": 3, "image_id": 2, "bbox": [40, 5, 20, 30], "person_id": 3, "category_id": 1}]} | top
    if change is not None:
        change(content)
    for split in ("train", "test"):
        write_json(tmp_path / f"annotations/{split}.json", content)
    return tmp_path


def test_coco_reads_without_images(tmp_path):
    found = read_coco(coco_root(tmp_path))
    assert [each.ids.tolist() for each in found.gallery] == [[1], [1, -1, 0]] and found.gallery[0].name == "a.jpg"
    assert found.gallery[0].boxes.tolist() == [[0, 5, 19, 35]]  # cut at the edge
    query = found.protocol("standard").queries[0]
    assert (query.scene, query.person, query.positives.tolist()) == (1, 1, [0])
    assert any("4 images are missing" in line or "2 images are missing" in line for line in check_search_set(found))


def test_coco_leaves_out_crowds_and_other_categories(tmp_path):
    def change(content):
        content["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
        content["annotations"][1]["iscrowd"] = 1
        content["annotations"][2]["category_id"] = 2

    assert [each.ids.tolist() for each in read_coco(coco_root(tmp_path, change)).gallery] == [[1], [0]]


@pytest.mark.parametrize("change, message", [
    (lambda c: c["annotations"][0].update(bbox=[70, 5, 20, 30]), "box .* has no area inside a.jpg"),
    (lambda c: c["annotations"][0].update(bbox=[7, 5, 20, -1]), "box .* has no area inside a.jpg"),
    (lambda c: c["annotations"][0].update(bbox=[7, 5, 20]), "not COCO-style json"),
    (lambda c: c["annotations"][0].update(image_id=9), "annotation 0 is of image 9"),
    (lambda c: c["images"][0].pop("width"), "KeyError 'width'"),
    (lambda c: c["images"][0].update(id=2), "two images have one id"),
    (lambda c: c["images"][0].update(file_name="b.jpg"), "b.jpg appears twice"),
    (lambda c: c.pop("annotations"), "KeyError 'annotations'"),
])
def test_coco_bad_content(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_coco(coco_root(tmp_path, change))


def test_coco_json_that_is_no_json(tmp_path):
    coco_root(tmp_path)
    (tmp_path / "annotations/test.json").write_text('{"images": [')
    with pytest.raises(UserError, match="test.json is not valid JSON"):
        read_coco(tmp_path)
    (tmp_path / "annotations/test.json").write_text('[1, 2]')
    with pytest.raises(UserError, match="test.json is not COCO-style json"):
        read_coco(tmp_path)
    (tmp_path / "annotations/test.json").unlink()
    with pytest.raises(UserError, match="annotations/test.json is missing"):
        read_coco(tmp_path)


def test_coco_queries_written_by_hand(tmp_path):
    entry = {"image": "a.jpg", "bbox": [1, 5, 20, 30], "person_id": 17}
    write_json(coco_root(tmp_path) / "annotations/queries.json", [entry, entry | {"gallery": ["b.jpg", "a.jpg"]},
                                                                 entry | {"person_id": 99}])
    queries = read_coco(tmp_path).protocol("standard").queries
    assert [query.positives.tolist() for query in queries] == [[1], [1], []]
    assert queries[0].distractors is None and queries[1].distractors.tolist() == [0]
    assert queries[0].truth.tolist() == [[5, 5, 25, 35]]
    write_json(tmp_path / "annotations/queries.json", [entry | {"gallery": ["gone.jpg"]}])
    with pytest.raises(UserError, match="queries.json .* 'gone.jpg'"):
        read_coco(tmp_path)


# ---------------------------------------------------------------- MOTChallenge


def sequence(root, name, rows, length=6):
    for frame in range(1, length + 1):
        put(root / name / f"img1/{frame:06d}.jpg")
    put(root / name / "gt/gt.txt", "\n".join(rows).encode())
    put(root / name / "seqinfo.ini", f"[Sequence]\nseqLength={length}\nimWidth=640\nimHeight=480\nimExt=.jpg\n".encode())


def test_mot_people_of_two_sequences_are_different(tmp_path):
    rows = [f"{frame},{person},{10 * frame},20,30,90,1,-1,-1,-1" for frame in range(1, 7) for person in (2, 9)]
    sequence(tmp_path, "a", rows + ["1,5,1,1,9,9,0,-1,-1,-1", "2,6,900,1,9,9,1,-1,-1,-1"])
    sequence(tmp_path, "b", rows)
    found = read_mot(tmp_path, train=[], gallery=["a", "b"], gap=2, stride=2)
    assert [each.name for each in found.gallery][:2] == ["a/img1/000001.jpg", "a/img1/000003.jpg"]
    assert [each.ids.tolist() for each in found.gallery] == [[0, 1]] * 3 + [[2, 3]] * 3  # flag 0 and outside are gone
    query = found.protocol("standard").queries[0]
    assert query.scene == 0 and query.gallery(6).tolist() == [1, 2, 3, 4, 5]
    assert read_mot(tmp_path, train=[], gallery=["a"], gap=3).protocol("standard").queries[0].gallery(6).tolist() == [3, 4, 5]
    by_default = read_mot(tmp_path)
    assert {each.name[0] for each in by_default.train} == {"a"} and {each.name[0] for each in by_default.gallery} == {"b"}
    assert by_default.protocols == {}  # six frames hold none that are ten apart
    assert [each.name for each in read_mot(tmp_path / "b", gap=1).gallery][0] == "b/img1/000005.jpg"


@pytest.mark.parametrize("line", ["1,2,3", "one,2,3,4,5,6,1", "1,2,3,4,0,6,1", "1,2.5,3,4,5,6,1", "1,2,nan,4,5,6,1",
                                  "1;2;3;4;5;6"])
def test_mot_malformed_line_is_named(tmp_path, line):
    sequence(tmp_path, "a", ["1,2,3,4,5,6,1,-1,-1,-1", "", line])
    with pytest.raises(UserError, match="gt.txt, line 3"):
        read_mot(tmp_path)


def test_mot_errors_say_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="gt/gt.txt is missing"):
        read_mot(tmp_path)
    sequence(tmp_path, "a", ["9,2,3,4,5,6,1"])
    with pytest.raises(UserError, match="frame outside 1 to 6"):
        read_mot(tmp_path)
    sequence(tmp_path, "a", ["1,2,3,4,5,6,1"])
    with pytest.raises(UserError, match="no sequence 'c'"):
        read_mot(tmp_path, gallery=["c"])
    with pytest.raises(UserError, match="stride 0"):
        read_mot(tmp_path, stride=0)
    (tmp_path / "a/img1/000004.jpg").unlink()
    with pytest.raises(UserError, match="000004.jpg is missing"):
        read_mot(tmp_path)
    (tmp_path / "a/seqinfo.ini").write_text("[Sequence]\nseqLength=many\n")
    with pytest.raises(UserError, match="seqinfo.ini"):
        read_mot(tmp_path)


# ---------------------------------------------------------------- folders, formats, checks


def test_folder_without_boxes(tmp_path):
    put(tmp_path / "a.jpg"), put(tmp_path / "deep/er/B.JPG"), put(tmp_path / ".hidden/c.jpg")
    found = read_folder(tmp_path)
    assert [each.name for each in found.gallery] == ["a.jpg", "deep/er/B.JPG"] and found.protocols == {} and found.train == []
    assert check_search_set(found)[-1].startswith("no protocol")


@pytest.mark.parametrize("text, message", [
    ("image,x1,y1,x2\na.jpg,1,2,3\n", "no column 'y2'"),
    ("", "no column 'image'"),
    ("image,x1,y1,x2,y2,person\na.jpg,1,2,3,4,Ada\na.jpg,1,2,three,4,Ada\n", "line 3"),
    ("image,x1,y1,x2,y2\na.jpg,1,2\n", "line 2"),
    ("image,x1,y1,x2,y2\nb.jpg,1,2,3,4\n", "'b.jpg'"),
    ("image,x1,y1,x2,y2\na.jpg,30,2,3,4\n", "has no area inside a.jpg"),
    ("image,x1,y1,x2,y2\na.jpg,700,2,800,4\n", "has no area inside a.jpg"),
    ("image,x1,y1,x2,y2\na.jpg,nan,2,800,4\n", "has no area inside a.jpg"),
])
def test_folder_bad_boxes(tmp_path, text, message):
    put(tmp_path / "a.jpg")
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path)


def test_folder_boxes_with_byte_order_mark_and_windows_lines(tmp_path):
    put(tmp_path / "a.jpg"), put(tmp_path / "b.jpg")
    text = "\ufeffimage, x1, y1, x2, y2, person\r\na.jpg, 1, 2, 30, 40, 7\r\nb.jpg, 1, 2, 900, 40, 7\r\n"
    (tmp_path / "boxes.csv").write_bytes(text.encode())
    found = read_folder(tmp_path)
    assert found.gallery[1].boxes.tolist() == [[1, 2, 640, 40]] and len(found.protocol("standard")) == 1


def test_every_format_says_what_the_folder_is(tmp_path):
    with pytest.raises(UserError, match="cuhk-sysu, prw, coco, mot, folder"):
        read_search_set(tmp_path, "voc")
    assert recognised_format(tmp_path) is None
    for format in FORMATS:
        with pytest.raises(UserError, match="no such folder" if format != "mot" else "gt/gt.txt|no such folder"):
            read_search_set(tmp_path / "nowhere", format)
    coco_root(tmp_path)
    for format in ("cuhk-sysu", "prw", "mot"):
        with pytest.raises(UserError, match=r"missing.*looks like format 'coco'"):
            read_search_set(tmp_path, format)
    assert read_search_set(tmp_path, "coco").name == "coco"


def test_unwritable_target_is_one_line(tmp_path):
    put(tmp_path / "s1.jpg")
    (tmp_path / "file").write_text("in the way")
    one = scene("s1.jpg", path=tmp_path)
    search_set = SearchSet("x", [], [one], {"TestG1": Protocol("TestG1", []), "standard": Protocol("standard", [])})
    for write in (write_cuhk_sysu, write_coco):
        with pytest.raises(UserError, match="cannot write"):
            write(search_set, tmp_path / "file")


def test_check_finds_nothing_in_a_sound_set(tmp_path):
    scenes = []
    for i in range(3):
        put(tmp_path / f"{i}.jpg", picture(640, 480 + i))
        scenes.append(replace(scene(f"{i}.jpg", [(5, 5, 30, 80), (50, 5, 80, 80)], [0, 1], path=tmp_path), height=480 + i))
    protocol = choose_queries(scenes)
    sound = SearchSet("sound", [], scenes, {"standard": protocol})
    assert check_search_set(sound) == []
    (tmp_path / "1.jpg").write_bytes(picture(640, 481)[:-200])
    put(tmp_path / "2.jpg", picture(100, 100))
    report = check_search_set(replace(sound, gallery=[*scenes[:2], replace(scenes[2], boxes=[[-4, 5, 30, 80], [50, 5, 80, 80]])]))
    assert report == ["1 images are truncated or are no images: 1.jpg", "1 images differ in size from their annotation: 2.jpg",
                      "1 gallery boxes reach out of their image: 2.jpg",
                      "1 boxes of standard are not among the people of their scene: query 0 (0.jpg) in 2.jpg"]


def test_check_finds_turned_photographs(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "turned.jpg", exif=exif)
    found = read_folder(tmp_path)
    assert (found.gallery[0].width, found.gallery[0].height) == (64, 48)
    assert any("stored turned" in line for line in check_search_set(found))


@given(st.lists(st.text("s019_.jpé²x", max_size=6), max_size=8))
def test_natural_order_is_total(names):
    once = sorted(names, key=natural_key)
    assert once == sorted(reversed(once), key=natural_key)


# ---------------------------------------------------------------- real files


@needs_real_data
def test_real_cuhk_protocol(tmp_path):
    found = read_cuhk_protocol(real_data / "cuhk-sysu/TestG100.mat")
    printed = cuhk_sysu.printed_queries(real_data / "cuhk-sysu/TestG100.mat")
    cuhk_sysu.save_queries(tmp_path / "kept.npz", printed)
    for kept, query in zip(cuhk_sysu.load_queries(tmp_path / "kept.npz"), printed, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(kept, query))
    queries, names = found.protocol("TestG100").queries, [each.name for each in found.gallery]
    assert len(queries) == 2900 and len({query.person for query in queries}) == 2900 and len(names) == 6978
    assert sum(len(query.positives) for query in queries) == 5447
    assert {len(query.gallery(len(names))) for query in queries} == {100}
    own = [number for number, query in enumerate(queries) if query.scene in query.gallery(len(names))]
    twice = [number for number, query in enumerate(queries) if len(set(query.gallery(len(names)).tolist())) < 100]
    assert own == [493, 2132] and twice == [1250, 1633, 1997, 2561]
    assert queries[2132].truth[2].tolist() == queries[2132].box.tolist()  # the query's own box is its answer
    assert [names[n] for n in queries[493].positives] == ["s14431.jpg", "s14430.jpg"]
    assert queries[1250].truth[0].tolist() == queries[1250].truth[1].tolist() == [392, 128, 476, 353]
    for number, name in ((1633, "s11888.jpg"), (1997, "s5957.jpg"), (2561, "s12295.jpg")):
        boxes = queries[number].truth[[names[n] == name for n in queries[number].positives]]
        assert len(boxes) == 2 and (boxes[0] != boxes[1]).any()
    extremes = np.concatenate([each.boxes for each in found.gallery])
    assert extremes[:, :2].min(axis=0).tolist() == [1, 1] and (extremes[:, 0].max(), extremes[:, 1].max()) == (763, 633)


@needs_real_data
def test_real_prw_json():
    expected = {"train": (5704, 18048, 14907, 483), "test": (6112, 25062, 19127, 544)}
    for split, counts in expected.items():
        scenes, number = read_coco_scenes(real_data / f"prw/{split}_pid.json", "frames")
        found = split_statistics(scenes)
        assert (found["scenes"], found["boxes"], found["labelled"], found["persons"]) == counts and len(number) == counts[3]
    assert len(read_json(real_data / "prw/test_pid.json")["images"]) == 6112


@needs_real_data
@pytest.mark.parametrize("name, counts", [("ETH-Sunnyday", (354, 1858, 30)), ("TUD-Campus", (71, 359, 8)),
                                          ("TUD-Stadtmitte", (179, 1156, 10))])
def test_real_mot_sequences(name, counts):
    found = read_mot(real_data / "mot", train=[], gallery=[name])
    statistics = split_statistics(found.gallery)
    assert (statistics["scenes"], statistics["boxes"], statistics["persons"]) == counts
    for each in found.gallery:
        assert len(each) == 0 or (each.boxes.min() >= 0 and each.boxes[:, 2].max() <= 640 and each.boxes[:, 3].max() <= 480)
    frames = [int(each.name[-10:-4]) for each in found.gallery]
    for query in found.protocol("standard").queries:
        assert all(abs(frames[query.scene] - frames[n]) >= 10 for n in query.gallery(len(frames)))


@needs_real_data
def test_real_mot_sequence_becomes_cuhk_layout(tmp_path):
    found = read_mot(real_data / "mot/TUD-Campus", gap=5, stride=5)
    protocol = Protocol("TestG2", found.protocol("standard").queries)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_cuhk_sysu(replace(found, protocols={"TestG2": protocol}), tmp_path)
        again = read_cuhk_sysu(tmp_path)
    assert [len(each) for each in again.gallery] == [len(each) for each in found.gallery]
    assert [query.positives.tolist() for query in again.protocol("TestG2").queries] \
        == [query.positives.tolist() for query in protocol.queries]
