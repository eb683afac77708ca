"The twins: resuming, reuse, refusals, protocols, truth, and their difficulty by a neutral yardstick."
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest

from ps_nb.baselines.colours import colour_histogram
from ps_nb.baselines.describe import features_of_boxes, features_of_queries
from ps_nb.core import UserError, read_json, write_json
from ps_nb.evaluation.ranking import evaluate_search
from ps_nb.twin import render
from ps_nb.twin.plans import (
    CUHK_SIZES,
    CUHK_WORLDS,
    PRESENT,
    PRW_SIZES,
    PRW_WORLDS,
    WorldSize,
    plan_fixed_cameras,
    plan_hand_held,
)
from ps_nb.twin.render import render_twin

NAMES = ("cuhk-twin", "prw-twin")
LITTLE = {"cuhk-twin": WorldSize(20, 16, 8, 7, 96, 72, 18, (6, 15)),
          "prw-twin": WorldSize(20, 16, 6, 5, 96, 54, 12, asked=4, camera_6=(60, 48))}


def pictures(root):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*.jpg"))}


@pytest.fixture(scope="module", params=NAMES)
def finished(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / request.param
    return request.param, root, render_twin(request.param, root, LITTLE[request.param], seed=3)


def test_interrupted_render_ends_in_the_same_bytes(finished, tmp_path, monkeypatch):
    name, root, whole = finished
    draw, calls = render.draw_batch, []

    def stops(plans, *, world, seed, folder):
        calls.append(len(plans))
        if len(calls) == 2:
            draw(plans[:2], world, seed, folder)
            (folder / plans[1].name).write_bytes(b"half a pict")  # the power went
            raise KeyboardInterrupt
        return draw(plans, world, seed, folder)

    monkeypatch.setattr(render, "draw_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        render_twin(name, tmp_path, LITTLE[name], seed=3)
    assert not (tmp_path / "twin.json").exists()
    with pytest.raises(UserError, match="unfinished twin of other parameters"):
        render_twin(name, tmp_path, LITTLE[name], seed=4)
    resumed = render_twin(name, tmp_path, LITTLE[name], seed=3)
    assert calls == [32, 4, 4]  # the first batch was not drawn again
    assert pictures(tmp_path) == pictures(root) and resumed.fingerprint() == whole.fingerprint()
    assert read_json(tmp_path / "twin.json") == read_json(root / "twin.json")
    assert not (tmp_path / "unfinished").exists()


def test_a_power_loss_costs_the_batches_it_damaged(finished, tmp_path, monkeypatch):
    name, root, whole = finished
    draw, calls = render.draw_batch, []

    def counts(plans, **options):
        calls.append(len(plans))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(plans, **options)

    monkeypatch.setattr(render, "draw_batch", counts)
    with pytest.raises(KeyboardInterrupt):
        render_twin(name, tmp_path, LITTLE[name], seed=3)
    drawn = sorted(tmp_path.rglob("*.jpg"))
    drawn[0].write_bytes(drawn[0].read_bytes()[:-100])  # its end never reached the disk; the header is whole
    drawn[1].write_bytes(b"")
    resumed = render_twin(name, tmp_path, LITTLE[name], seed=3)
    assert calls == [32, 4, 32, 4]
    assert pictures(tmp_path) == pictures(root) and resumed.fingerprint() == whole.fingerprint()


def test_damaged_records_of_a_batch_are_not_believed(tmp_path):
    plans = plan_hand_held(CUHK_WORLDS[PRESENT], LITTLE["cuhk-twin"], 3)[:2]
    draw = partial(render.draw_all, plans, CUHK_WORLDS[PRESENT], 3, tmp_path, tmp_path / "records", 1)
    kept = tmp_path / "records/000000.json"
    drawn = draw()
    content = read_json(kept)
    shorter = {**content, "records": [{**content["records"][0], "boxes": []}, content["records"][1]]}
    for damaged in ([], {}, [1], None, "text", {"records": 3, "checksum": 4}, {**content, "records": [[]]}, shorter):
        write_json(kept, damaged)
        assert not render.batch_is_whole(plans, tmp_path, kept)
        assert draw() == drawn and read_json(kept) == content


def test_a_render_killed_before_its_first_file_is_started(finished, tmp_path):
    name, root, _ = finished
    (tmp_path / "unfinished").mkdir()
    assert pictures(tmp_path) == {} and render_twin(name, tmp_path, LITTLE[name], seed=3)
    assert pictures(tmp_path) == pictures(root)


def test_every_file_of_a_twin_is_the_same_at_another_time(finished, tmp_path, monkeypatch):
    name, root, _ = finished
    monkeypatch.setattr("time.asctime", lambda *_: "Tue Feb  2 00:00:00 2025")
    render_twin(name, tmp_path, LITTLE[name], seed=3)
    contents = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                for folder in (root, tmp_path)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("content", [[], {}, None, 3, "twin", {"parameters": None}, {"parameters": {}}, [{"parameters": {}}]])
def test_damaged_twin_json_is_one_line(tmp_path, content):
    write_json(tmp_path / "twin.json", content)
    with pytest.raises(UserError, match="twin.json") as error:
        render_twin("cuhk-twin", tmp_path, "smoke")
    assert "\n" not in str(error.value) and "render it again" in str(error.value)


def test_damaged_twin_is_to_be_rendered_again(finished, tmp_path):
    name, root, _ = finished
    shutil.copytree(root, tmp_path / "copy")
    damaged = sorted((tmp_path / "copy").rglob("*.jpg"))[0]
    damaged.write_bytes(b"")
    with pytest.raises(UserError, match=f"delete the folder and render it again: .*{damaged.name}"):
        render_twin(name, tmp_path / "copy", LITTLE[name], seed=3)


def test_finished_twin_is_reused_and_guarded(finished, monkeypatch):
    name, root, whole = finished
    monkeypatch.setattr(render, "draw_batch", None)  # drawing anything would fail
    assert render_twin(name, root, LITTLE[name], seed=3).fingerprint() == whole.fingerprint()
    for other in (dict(size=LITTLE[name], seed=4), dict(size=replace(LITTLE[name], train_scenes=21), seed=3)):
        with pytest.raises(UserError, match="other parameters"):
            render_twin(name, root, **other)


def test_truth_fits_the_annotation(finished):
    name, root, twin = finished
    truth = read_json(root / "twin.json")["scenes"]
    for split in (twin.train, twin.gallery):
        person_of = {}
        for scene in split:
            told = truth[scene.name]
            assert len(told["persons"]) == len(told["groups"]) == len(told["hidden"]) == len(scene)
            assert 0 <= min(told["hidden"], default=0) and max(told["hidden"], default=0) <= render.SEEN
            for identity, person in zip(scene.ids.tolist(), told["persons"]):
                if identity >= 0:
                    assert person_of.setdefault(identity, person) == person
            assert (scene.boxes >= 0).all() and (scene.boxes <= [scene.width, scene.height] * 2).all()
        assert len(set(person_of.values())) == len(person_of)
    split = [{p for scene in part for p in truth[scene.name]["persons"]} for part in (twin.train, twin.gallery)]
    assert not split[0] & split[1]


def test_queries_are_answerable(finished):
    _, _, twin = finished
    for protocol in twin.protocols.values():
        assert len(protocol) > 1
        for query in protocol.queries:
            assert len(query.positives) and query.scene not in query.positives
            for scene in query.gallery(len(twin.gallery)):
                assert (query.person in twin.gallery[scene].ids) == (scene in query.positives) or protocol.name == "multi-view"


def test_galleries_are_nested_and_subsets_are_what_they_say(tmp_path):
    size = replace(CUHK_SIZES["small"], train_scenes=4, train_persons=2, gallery_scenes=90, gallery_persons=60, width=80,
                   height=60, least_height=11, galleries=(20, 50, 89))
    twin = render_twin("cuhk-twin", tmp_path, size)
    truth = read_json(tmp_path / "twin.json")["scenes"]
    galleries = [twin.protocol(f"TestG{count}").queries for count in size.galleries]
    for rows in zip(*galleries):
        sets = [set(row.gallery(len(twin.gallery)).tolist()) for row in rows]
        assert all(a < b for a, b in zip(sets, sets[1:])) and [len(each) for each in sets] == list(size.galleries)
        assert len(sets[-1]) == len(twin.gallery) - 1
    heights = sorted(query.box[3] - query.box[1] for query in galleries[2])
    lowest = [query.box[3] - query.box[1] for query in twin.protocol("Resolution").queries]
    assert sorted(lowest) == heights[: round(len(heights) / 10)]

    def hidden(query):
        row = np.flatnonzero(twin.gallery[query.scene].ids == query.person)[0]
        return truth[twin.gallery[query.scene].name]["hidden"][row]

    assert min(hidden(query) for query in twin.protocol("Occlusion").queries) > 0.4
    assert sum(hidden(query) > 0.4 for query in galleries[2]) == len(twin.protocol("Occlusion"))


def test_two_processes_render_once_and_alike(tmp_path):
    name, root = "cuhk-twin", tmp_path / "alone"
    render_twin(name, root, LITTLE[name], seed=3)
    code = ("import sys; from ps_nb.twin.render import render_twin; from ps_nb.twin.plans import WorldSize;"
            f"render_twin({name!r}, sys.argv[1], WorldSize(**{asdict(LITTLE[name])!r}), seed=3)")
    command = [sys.executable, "-c", code, str(tmp_path / "both")]
    several = [subprocess.Popen(command, env={**os.environ, "PYTHONHASHSEED": str(seed)}) for seed in (1, 2)]
    assert [process.wait(timeout=600) for process in several] == [0, 0]
    assert pictures(tmp_path / "both") == pictures(root)
    render_twin(name, tmp_path / "workers", LITTLE[name], seed=3, workers=2)
    assert pictures(tmp_path / "workers") == pictures(root)


@pytest.mark.parametrize("name,size,message", [
    ("cuhk-twins", "small", "choose one of cuhk-twin, prw-twin"),
    ("cuhk-twin", "paper", "choose one of smoke, small, medium, full"),
])
def test_unknown_names_are_refused(tmp_path, name, size, message):
    with pytest.raises(UserError, match=message):
        render_twin(name, tmp_path, size)


def test_impossible_sizes_are_refused(tmp_path):
    for change in (dict(gallery_scenes=2), dict(width=0), dict(galleries=()), dict(galleries=(200,)), dict(train_persons=0),
                   dict(least_height=500)):
        with pytest.raises(UserError, match="cuhk-twin"):
            render_twin("cuhk-twin", tmp_path / "size", replace(CUHK_SIZES["smoke"], **change))


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="thesis.tex"):
        render_twin("cuhk-twin", tmp_path, "smoke")
    with pytest.raises(UserError, match="thesis.tex"):
        render_twin("cuhk-twin", tmp_path / "thesis.tex", "smoke")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(render.Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        render_twin("prw-twin", tmp_path, "smoke")


@pytest.mark.parametrize("seed", range(3))
def test_plans_follow_the_published_counts(seed):
    size = replace(CUHK_SIZES["full"], train_scenes=600, gallery_scenes=600, train_persons=296, gallery_persons=249)
    cameras = replace(PRW_SIZES["full"], train_scenes=600, gallery_scenes=600, train_persons=51, gallery_persons=53)
    for plans, world in ((plan_hand_held(CUHK_WORLDS[PRESENT], size, seed), CUHK_WORLDS[PRESENT]),
                         (plan_fixed_cameras(PRW_WORLDS[PRESENT], cameras, seed), PRW_WORLDS[PRESENT])):
        for split, people in (("train", world.people_train), ("gallery", world.people_gallery)):
            part = [plan for plan in plans if plan.split == split]
            assert len(part) == 600 and min(len(plan.appearances) for plan in part) >= 1
            assert abs(sum(len(plan.appearances) for plan in part) / 600 / people - 1) < 0.12
            for plan in part:
                present = [each.person for each in plan.appearances]
                assert len(present) == len(set(present))  # nobody is in a picture twice
                assert all(np.isfinite([each.x, each.height, each.yaw]).all() for each in plan.appearances)


def test_yardstick(tmp_path):
    found = {}
    for name, size, protocol in (("cuhk-twin", CUHK_SIZES["small"], "TestG100"), ("prw-twin", PRW_SIZES["small"], "standard")):
        people = 96 if name == "cuhk-twin" else 50
        size = replace(size, train_scenes=6, train_persons=2, gallery_scenes=150, gallery_persons=people, galleries=(100,),
                       asked=25)
        twin = render_twin(name, tmp_path / name, size)
        boxes = features_of_boxes(twin.gallery, colour_histogram)
        queries = features_of_queries(twin.gallery, twin.protocol(protocol), colour_histogram)
        found[name] = evaluate_search(boxes, queries, twin.gallery, twin.protocol(protocol))["map"]
    assert 0.3 < found["cuhk-twin"] < 0.75
    assert found["prw-twin"] < 0.75 * found["cuhk-twin"]
