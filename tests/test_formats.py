"""Files as other people's tools write them: who is a person in them, which one, and what is left out and said."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_datasets import coco_root, needs_real_data, picture, put, real_data
from typer.testing import CliRunner

from ps_nb.cli import app
from ps_nb.core import UserError, read_json
from ps_nb.data.checks import check_search_set, check_training, counted, shared_pictures
from ps_nb.data.files import corners
from ps_nb.data.formats import read_coco, read_coco_scenes, read_folder, read_mot
from ps_nb.data.scenes import SearchSet
from ps_nb.systems.recipes import cgps, oim
from ps_nb.systems.runs import learns_identities

any_json = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
                        max_leaves=5)
many = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def ids(search_set):
    return [scene.ids.tolist() for scene in search_set.gallery]


# ---------------------------------------------------------------- COCO json: categories


@pytest.mark.parametrize("name", ["person", "Person", "PEDESTRIAN", " people"])
def test_coco_people_by_any_usual_name(tmp_path, name):
    def change(content):
        content["categories"] = [{"id": 1, "name": name}, {"id": 2, "name": "car"}]
        content["annotations"][2]["category_id"] = 2

    found = read_coco(coco_root(tmp_path, change))
    assert ids(found) == [[1], [1, 0]]  # the car is nobody
    assert "left out: 1 car" in counted(found)


def test_coco_categories_that_name_no_people(tmp_path):
    many_names = [{"id": i, "name": f"thing{i}"} for i in range(42)]
    with pytest.raises(UserError, match="thing0, thing1, thing2, thing3, thing4 and 37 more"):
        read_coco(coco_root(tmp_path / "several", categories=many_names))
    assert ids(read_coco(coco_root(tmp_path / "one", categories=[{"id": 1, "name": "player"}]))) == [[1], [1, -1, 0]]
    with pytest.raises(UserError, match="category '1', which it does not list"):
        read_coco(coco_root(tmp_path / "text", lambda c: c["annotations"][0].update(category_id="1"),
                            categories=[{"id": 1, "name": "person"}]))


def test_coco_crowds_and_boxes_without_area_are_counted(tmp_path):
    def change(content):
        content["annotations"][1]["iscrowd"] = 1
        content["annotations"][2]["bbox"] = [30, 5, 20, 0]

    found = read_coco(coco_root(tmp_path, change))
    assert ids(found) == [[1], [0]]
    assert "1 crowd regions, 1 boxes without area" in counted(found)


# ---------------------------------------------------------------- COCO json: identities


@pytest.mark.parametrize("field", ["track_id", "instance_id", "pid", "identity"])
def test_coco_identities_by_other_names(tmp_path, field):
    def change(content):
        for entry in content["annotations"]:
            entry[field] = entry.pop("person_id")

    found = read_coco(coco_root(tmp_path, change))
    assert ids(found) == [[1], [1, -1, 0]]
    assert f"identities read from {field}" in counted(found)


def test_coco_identities_among_attributes(tmp_path):
    def change(content):
        for entry in content["annotations"]:
            entry["attributes"] = {"occluded": False, "track_id": entry.pop("person_id")}

    assert ids(read_coco(coco_root(tmp_path, change))) == [[1], [1, -1, 0]]


def test_coco_unknown_people_with_a_number(tmp_path):
    assert ids(read_coco(coco_root(tmp_path, lambda c: c["annotations"][3].update(is_known=False)))) == [[0], [0, -1, -1]]


def first_person(tmp_path, value):
    for path in (coco_root(tmp_path) / "annotations").glob("*.json"):
        content = read_json(path)
        content["annotations"][0]["person_id"] = value
        path.write_text(json.dumps(content))  # which writes NaN and Infinity, as other tools do
    return tmp_path


@pytest.mark.parametrize("value, expected", [("Ada", [[2], [1, -1, 0]]), ("17", [[1], [1, -1, 0]]), (3.0, [[0], [1, -1, 0]]),
                                             (None, [[-1], [1, -1, 0]]), (float("nan"), [[-1], [1, -1, 0]])])
def test_coco_identities_of_any_kind(tmp_path, value, expected):
    assert ids(read_coco(first_person(tmp_path, value))) == expected


@pytest.mark.parametrize("value", [0.5, float("inf"), True, [3], {"id": 3}])
def test_coco_identities_that_are_none(tmp_path, value):
    with pytest.raises(UserError, match="no whole number and no text"):
        read_coco(first_person(tmp_path, value))


# ---------------------------------------------------------------- COCO json: everything else


def test_coco_text_image_ids_folders_and_backslashes(tmp_path):
    def change(content):
        for image in content["images"]:
            image["id"] = f"frame-{image['id']}"
            image["file_name"] = "day one\\" + image["file_name"]
        for entry in content["annotations"]:
            entry["image_id"] = f"frame-{entry['image_id']}"

    found = read_coco(coco_root(tmp_path, change))
    assert [scene.name for scene in found.gallery] == ["day one/a.jpg", "day one/b.jpg"] and ids(found) == [[1], [1, -1, 0]]
    put(tmp_path / "images/day one/a.jpg", picture(64, 48))
    assert read_coco(tmp_path).gallery[0].path.exists()


@pytest.mark.parametrize("change", [lambda c: c["images"][0].update(width=0), lambda c: c["images"][0].update(width=64.5),
                                    lambda c: c["images"][0].update(height="48"), lambda c: c["images"][0].update(camera=[1]),
                                    lambda c: c["images"][0].update(file_name=7)])
def test_coco_images_that_make_no_sense(tmp_path, change):
    with pytest.raises(UserError, match="not COCO-style json"):
        read_coco(coco_root(tmp_path, change))


@many
@given(st.data())
def test_any_value_in_a_coco_json_is_one_line_or_works(tmp_path_factory, data):
    root = coco_root(tmp_path_factory.mktemp("any"))
    content = read_json(root / "annotations/test.json") | {"categories": [{"id": 1, "name": "person"}]}
    place = content
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(any_json)
            break
        place = place[key]
    for split in ("train", "test"):
        (root / f"annotations/{split}.json").write_text(json.dumps(content))
    try:
        found = read_coco(root)
        check_search_set(found), counted(found), found.fingerprint()
    except UserError as error:
        assert "\n" not in str(error)


@needs_real_data
@pytest.mark.parametrize("split, moved", [("train", 82), ("test", 110)])
def test_real_coco_boxes_are_those_of_the_file(split, moved):
    path = real_data / f"prw/{split}_pid.json"
    scenes, _ = read_coco_scenes(path, "frames")
    content, given = read_json(path), {}
    for entry in content["annotations"]:
        given.setdefault(entry["image_id"], []).append(entry["bbox"])
    written = corners(np.concatenate([given[image["id"]] for image in content["images"]]))
    read = np.concatenate([scene.boxes for scene in scenes])
    assert (read != written).any(axis=1).sum() == moved and np.abs(read - written).max() <= 9


# ---------------------------------------------------------------- MOT


def video(root, name, rows, numbers=range(1, 7), pattern="{:06d}.jpg", ini=True, end="\n"):
    for number in numbers:
        put(root / name / "img1" / pattern.format(number))
    put(root / name / "gt/gt.txt", end.join(rows).encode())
    if ini:
        put(root / name / "seqinfo.ini", f"[Sequence]\nseqLength={len(numbers)}\nimWidth=640\nimHeight=480\n".encode())
    return root


def rows_of(frames=range(1, 7), tail="1,1,1", separator=","):
    return [f"{frame},{person},{10 * frame},20,30,90,{tail}".replace(",", separator) for frame in frames for person in (2, 9)]


def searched(root, **options):
    return read_mot(root, train=[], gallery=["a"], gap=1, **options)


def test_mot_classes_that_are_not_people(tmp_path):
    rows = [*rows_of(), "1,5,1,1,9,9,1,3,1", "2,6,1,1,9,9,1,7,0.5", "2,6,1,1,9,9,1,2,0.5", "3,6,1,1,9,9,1,3,1"]
    found = searched(video(tmp_path, "a", rows))
    assert ids(found) == [[0, 1]] * 6 and "left out: 2 of class 3, 1 of class 7, 1 of class 2" in counted(found)
    assert ids(searched(tmp_path, classes=(1, 2, 7))) == [[0, 2], [0, 2, 1, 1], *[[0, 2]] * 4]


def test_mot_classes_named_or_counted_from_zero(tmp_path):
    rows = [*rows_of(tail="1,2,1"), "1,5,1,1,9,9,1,1,1"]
    video(tmp_path, "a", rows)
    put(tmp_path / "a/gt/labels.txt", b"car\r\nPerson\r\n")
    assert ids(searched(tmp_path)) == [[0, 1]] * 6
    put(tmp_path / "a/gt/labels.txt", b"car\nbicycle\n")
    with pytest.raises(UserError, match="car, bicycle, none of them"):
        searched(tmp_path)
    (tmp_path / "a/gt/labels.txt").unlink()
    assert len(searched(video(tmp_path, "a", rows_of(tail="1,0,1"))).gallery[0]) == 2
    with pytest.raises(UserError, match="no row of class 1, people, only of 3"):
        searched(video(tmp_path, "a", rows_of(tail="1,3,1")))


@pytest.mark.parametrize("tail", ["1", "1,-1,-1,-1", "1,3.25,-1.5,0"])
def test_mot_without_classes(tmp_path, tail):
    assert ids(searched(video(tmp_path, "a", rows_of(tail=tail)))) == [[0, 1]] * 6


@pytest.mark.parametrize("separator", [",", ";", " ", ", ", "\t"])
@pytest.mark.parametrize("start, end", [("", "\n"), ("\ufeff", "\r\n")])
def test_mot_separators_marks_and_line_ends(tmp_path, separator, start, end):
    rows = rows_of(separator=separator)
    assert ids(searched(video(tmp_path, "a", [start + rows[0], *rows[1:], ""], end=end))) == [[0, 1]] * 6


def test_mot_float_columns_and_no_rows(tmp_path):
    assert ids(searched(video(tmp_path, "a", [f"{frame}.0,2.0,10.5,20,30,90,1.0,1.0,0.9" for frame in range(1, 7)]))) == [[0]] * 6
    empty = searched(video(tmp_path, "a", []))
    assert ids(empty) == [[]] * 6 and empty.protocols == {}


@pytest.mark.parametrize("numbers, frames, pattern, ini", [
    (range(1, 7), range(1, 7), "{:08d}.jpg", True),  # DanceTrack
    (range(0, 6), range(0, 6), "{:06d}.JPG", True),
    (range(0, 6), range(1, 7), "frame_{:06d}.PNG", False),  # files from 0, rows from 1
    (range(1, 7), range(0, 6), "{:d}.jpg", False),  # and the other way round
    (range(0, 60, 10), range(0, 60, 10), "{:06d}.jpg", False),  # every tenth frame of a video
])
def test_mot_frames_by_their_number(tmp_path, numbers, frames, pattern, ini):
    video(tmp_path, "a", rows_of(frames), numbers, pattern, ini)
    put(tmp_path / "a/img1/._000001.jpg", b"left by a file manager"), put(tmp_path / "a/img1/Thumbs.db", b"")
    found = searched(tmp_path)
    assert ids(found) == [[0, 1]] * 6 and (found.gallery[0].width, found.gallery[0].height) == (640, 480)
    assert [scene.path.name for scene in found.gallery] == [pattern.format(number) for number in numbers]
    assert found.gallery[2].boxes[0].tolist() == [10 * frames[2], 20, 10 * frames[2] + 30, 110]


def test_mot_frames_that_do_not_fit(tmp_path):
    video(tmp_path, "a", rows_of(), ini=False)
    put(tmp_path / "a/img1/1.png")
    with pytest.raises(UserError, match="both frame 1"):
        searched(tmp_path)
    (tmp_path / "a/img1/1.png").unlink()
    (tmp_path / "a/img1/000003.jpg").unlink()
    with pytest.raises(UserError, match="one without an image"):
        searched(tmp_path)
    shutil.rmtree(tmp_path / "a/img1")
    with pytest.raises(UserError, match="holds no frame"):
        searched(tmp_path)


def test_mot_repeated_sequences_are_read_once(tmp_path):
    for name in ("02", "04"):
        for detector in ("DPM", "FRCNN", "SDP"):
            video(tmp_path, f"MOT17-{name}-{detector}", rows_of())
    found = read_mot(tmp_path, gap=1)
    assert {scene.name[:12] for scene in found.train} == {"MOT17-02-DPM"} and found.train_persons == 2
    assert {scene.name[:12] for scene in found.gallery} == {"MOT17-04-DPM"}
    assert "4 sequences left out, which repeat the pictures of MOT17-02-DPM, MOT17-04-DPM" in counted(found)
    asked = read_mot(tmp_path, train=["MOT17-02-DPM"], gallery=["MOT17-02-SDP"], gap=1)
    with pytest.raises(UserError, match="6 pictures are in training and in the gallery"):
        check_training(asked, identities=True)


@many
@given(st.text("0123456789.,;- \t\n\r\ufeffeEnaif", max_size=60))
@example("1e999,1,1,1,1,1,1")
@example("1,9999999999999999999,1,1,1,1,1")
@example("1,1,1,1,1e308,1e308,1,nan,inf")
def test_any_text_in_ground_truth_is_one_line_or_works(tmp_path_factory, text):
    root = video(tmp_path_factory.getbasetemp() / "any-truth", "a", [text], range(1, 3))
    try:
        counted(searched(root))
    except UserError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------- folders


def table(tmp_path, text):
    put(tmp_path / "a.jpg"), put(tmp_path / "b c/d.jpg")
    (tmp_path / "boxes.csv").write_bytes(text.encode())
    return read_folder(tmp_path)


@pytest.mark.parametrize("person", ["-1", "nan", "NaN", "", "-1.0", "None"])
def test_folder_people_that_are_nobody(tmp_path, person):
    assert ids(table(tmp_path, f"image,x1,y1,x2,y2,person\na.jpg,1,2,3,4,{person}\na.jpg,1,2,3,4,7.0\nb c/d.jpg,1,2,3,4,7\n")) \
        == [[-1, 0], [0]]


@pytest.mark.parametrize("text", [
    "image;x1;y1;x2;y2;person\na.jpg;1,5;2;30;40;Ada\n", "image\tx1\ty1\tx2\ty2\tperson\na.jpg\t1.5\t2\t30\t40\tAda\n",
    "image x1 y1 x2 y2 person\r\na.jpg 1.5  2 30 40 Ada\r\n",
    "\ufeffImage, X1, Y1, X2, Y2, Track_ID\n.\\a.jpg, 1.5, 2, 30, 40, 9\n",
])
def test_folder_separators(tmp_path, text):
    found = table(tmp_path, text)
    assert ids(found) == [[0], []] and found.gallery[0].boxes.tolist() == [[1.5, 2, 30, 40]]


def test_folder_names_as_windows_writes_them(tmp_path):
    assert ids(table(tmp_path, "image,x1,y1,x2,y2\r\nb c\\d.jpg,1,2,3,4\r\n")) == [[], [-1]]


@many
@given(st.text(max_size=40), st.sampled_from(["", "image,x1,y1,x2,y2,person\n", "image;x1;y1;x2;y2\n", "image x1 y1 x2 y2\n"]))
@example("a.jpg,1,2,3,4,\"" + "x" * 140000, "image,x1,y1,x2,y2,person\n")
@example("a.jpg\0,1,2,3,4", "image,x1,y1,x2,y2\n")
def test_any_text_in_a_table_is_one_line_or_works(tmp_path_factory, text, head):
    root = tmp_path_factory.getbasetemp() / "any-table"
    try:
        table(root, head + text.encode(errors="replace").decode())
    except UserError as error:
        assert "\n" not in str(error)


# ---------------------------------------------------------------- before a training


def test_notes_are_no_part_of_the_fingerprint(tmp_path):
    found = read_coco(coco_root(tmp_path))
    assert found.notes and replace(found, notes=()).fingerprint() == found.fingerprint()


def test_training_needs_identities_where_it_learns_from_them(tmp_path):
    def change(content):
        for entry in content["annotations"]:
            entry["who"] = entry.pop("person_id")

    nobody = read_coco(coco_root(tmp_path, change))
    assert learns_identities(oim("smoke")) and not learns_identities(cgps("smoke"))
    with pytest.raises(UserError, match="no person in the training scenes of coco has an identity.*no identities"):
        check_training(nobody, learns_identities(oim("smoke")))
    check_training(nobody, learns_identities(cgps("smoke")))


def test_train_command_refuses_a_worthless_training(tmp_path, monkeypatch):
    monkeypatch.setenv("PS_NB_RUNS", str(tmp_path / "runs"))

    def change(content):
        for entry in content["annotations"]:
            del entry["person_id"]

    root = coco_root(tmp_path / "data", change)
    result = CliRunner().invoke(app, ["train", str(root), "--format", "coco", "--profile", "smoke"])
    assert isinstance(result.exception, UserError) and "has an identity" in str(result.exception)
    for name in ("a.jpg", "b.jpg"):
        put(root / "images" / name, picture(64, 48))
    result = CliRunner().invoke(app, ["train", str(root), "--format", "coco", "--profile", "smoke", "--system", "cgps"])
    assert isinstance(result.exception, UserError) and "--allow-shared-pictures" in str(result.exception)
    assert not (tmp_path / "runs").exists()


def test_shared_pictures_are_compared_by_content(tmp_path):
    found = read_coco(coco_root(tmp_path))
    assert shared_pictures(found) == []  # no picture is there
    one, other = found.gallery
    put(one.path, picture(64, 48))
    other.path.write_bytes(picture(64, 48)[:-1] + b"!")  # as long, and different
    split = SearchSet("x", [one], [other])
    assert shared_pictures(split) == []
    put(other.path, picture(64, 48))
    assert shared_pictures(split) == ["a.jpg = b.jpg"]
    check_training(split, identities=True, allow_shared=True)


def test_check_command_counts(tmp_path):
    put(tmp_path / "x/a.jpg")
    (tmp_path / "x/boxes.csv").write_text("image,x1,y1,x2,y2,person\na.jpg,1,2,30,40,Ada\n")
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "x"), "--format", "folder"])
    assert "training: 0 images, 0 boxes, 0 identities; gallery: 1 images, 1 boxes, 1 identities" in result.output
