"""The command: every mistake is one line and exit status 1; the main paths work on a rendered twin."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ps_nb import cli
from ps_nb.cli import SYSTEMS, app, main
from ps_nb.core import UserError, file_checksum, fingerprint, json_text, read_json, write_json
from ps_nb.data.cuhk_sysu import read_cuhk_sysu
from ps_nb.data.scenes import load_detections
from ps_nb.detector.backbones import Backbone, weights_of
from ps_nb.evaluation.settings import PRESETS
from ps_nb.search.photographs import read_upright
from ps_nb.start import exported_app
from ps_nb.systems.recipes import ctxg, joint, oim, recipe_from_json, recipe_to_json
from ps_nb.systems.runs import run_identity, starting_backbone
from ps_nb.twin.render import render_twin

ROOT = Path(__file__).parent.parent


def call(monkeypatch, capsys, *arguments):
    "Exit status, standard output and standard error of `ps-nb arguments`."
    monkeypatch.setattr(sys, "argv", ["ps-nb", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    return ended.value.code or 0, output.out, output.err


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    render_twin("cuhk-twin", folder / "twin", "smoke", 0)
    return folder


@pytest.fixture
def ps_nb(work, monkeypatch, capsys):
    monkeypatch.setenv("PS_NB_RUNS", str(work / "runs"))
    monkeypatch.chdir(work)
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


def test_from_training_to_a_search(ps_nb, work, monkeypatch):
    status, printed, _ = ps_nb("recipe", "oim", "--profile", "smoke")
    (work / "mine.json").write_text(printed)
    status, out, _ = ps_nb("train", "twin", "--format", "cuhk-sysu", "--profile", "smoke", "--device", "cpu", "--recipe",
                           "mine.json", "--set", "schedule.epochs=1")
    assert status == 0
    run = out.split("trained searcher: ")[1].strip()
    shorter = replace(oim("smoke"), schedule=replace(oim("smoke").schedule, epochs=1))
    identity = run_identity(shorter, read_cuhk_sysu(work / "twin"), "smoke", 0)
    assert Path(run).name == f"oim-{fingerprint(identity)}" and len(read_json(Path(run) / "run.json")["log"]) == 1
    status, out, _ = ps_nb("detect", run, "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "found.npz")
    assert status == 0 and (work / "found.npz").exists()
    faster = ("--proposals", 2, "--bfloat16", "--device", "cpu")
    assert ps_nb("detect", run, "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "few.npz", *faster)[0] == 0
    names = [scene.name for scene in read_cuhk_sysu(work / "twin").gallery]
    few, usual = (np.diff(load_detections(work / f"{name}.npz", names).offsets) for name in ("few", "found"))
    assert 0 < few.sum() < usual.sum() and few.max() <= 2
    desks = []
    monkeypatch.setattr(cli, "serve_page", lambda desk, *_: desks.append(desk))
    assert ps_nb("serve", run, "index", *faster)[0] == 0
    assert len(desks[0].detect(read_upright(next((work / "twin" / "Image" / "SSM").iterdir())))[1]) <= 2
    status, out, _ = ps_nb("evaluate", "found.npz", "--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out",
                           "metrics.json", "--score-weighted")
    metrics = json.loads((work / "metrics.json").read_text())
    assert status == 0 and 0 <= metrics["search"]["map"] <= 1 and metrics["settings"]["similarity"] == "weighted"
    assert {"ap", "recall"} <= set(metrics["detection"]) and {"map", "top1", "top5", "top10", "queries"} <= set(metrics["search"])
    images = work / "photographs"
    shutil.copytree(work / "twin" / "Image" / "SSM", images)
    (images / "broken.jpg").write_bytes(b"no picture")
    status, _, error = ps_nb("search", "index", run, images, "--out", "strict", "--strict")
    assert status == 1 and "broken.jpg" in error and error.count("\n") == 1
    status, out, error = ps_nb("search", "index", run, images, "--out", "index")
    assert status == 0 and (work / "index").is_dir() and error.startswith("skipped: ") and "broken.jpg" in error
    gallery = [scene for scene in read_cuhk_sysu(work / "twin").gallery if len(scene)]
    image, box = images / gallery[0].name, ",".join(map(str, gallery[0].boxes[0]))

    def answered(*options):
        query = ("search", "query", run, "index", image, "--box", box, "--out", "answer", "--top", 1000, *options)
        status, _, error = ps_nb(*query)
        assert status == 0 and (work / "answer" / "search.png").exists()
        return [Path(person["image"]).name for person in read_json(work / "answer" / "search.json")["people"]], error

    indexed = set(answered("--keep-own")[0])  # a searcher of one epoch finds nobody in some pictures
    image, box = next((images / scene.name, ",".join(map(str, scene.boxes[0]))) for scene in gallery if scene.name in indexed)
    others, whole = answered()[0], answered("--keep-own")[0]
    kept = [name for name in whole if name != image.name]
    assert image.name not in others and len(kept) < len(whole) and kept == others[: len(kept)]
    once, first = answered("--one-per-image")[0], list(dict.fromkeys(others))
    assert len(once) == len(set(once)) and first == once[: len(first)] and len(first) < len(others)
    image = images.rename(work / "elsewhere") / image.name
    lost, error = answered("--keep-own")
    assert lost == whole and "--photos" in error
    assert answered("--photos", "elsewhere") == (others, "")
    status, _, error = ps_nb("search", "query", run, "index", image, "--box", "10,20,5,110", "--out", "answer")
    assert status == 1 and error.startswith("ps-nb: box") and error.count("\n") == 1


def test_a_search_by_the_company_people_keep(ps_nb, work):
    status, out, _ = ps_nb("train", "twin", "--format", "cuhk-sysu", "--profile", "smoke", "--device", "cpu", "--system", "ctxg")
    run, graph = (line.split(": ")[1] for line in out.splitlines() if line.startswith(("trained searcher", "its context graph")))
    assert status == 0 and Path(graph).parent == Path(run)
    arguments = ("--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5")
    assert ps_nb("detect", run, "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "company.npz")[0] == 0
    assert ps_nb("evaluate", "company.npz", *arguments, "--out", "plain.json")[0] == 0
    assert ps_nb("evaluate", "company.npz", *arguments, "--out", "graph.json", "--graph", graph)[0] == 0
    plain, by_graph = (json.loads((work / f"{name}.json").read_text())["search"] for name in ("plain", "graph"))
    status, _, error = ps_nb("evaluate", "company.npz", *arguments, "--out", "no.json", "--graph", graph, "--score-weighted")
    assert status == 1 and "weighted" in error and error.count("\n") == 1
    assert plain["recall"] == by_graph["recall"] and plain["queries"] == by_graph["queries"]
    images = work / "twin" / "Image" / "SSM"
    assert ps_nb("search", "index", run, images, "--out", "company")[0] == 0
    image = sorted(images.iterdir())[0]
    status, _, _ = ps_nb("search", "query", run, "company", image, "--box", "-5,20,60,110", "--out", "joined", "--graph", graph)
    found = json.loads((work / "joined" / "search.json").read_text())["people"]
    assert status == 0 and (work / "joined" / "context.png").exists() == bool(found)
    status, _, error = ps_nb("train", "twin", "--format", "cuhk-sysu", "--system", "pairs")
    assert status == 1 and "choose one of oim, ctxg" in error and error.count("\n") == 1


def test_quickstart_leaves_its_files(ps_nb, work):
    status, out, _ = ps_nb("quickstart", "--profile", "smoke", "--device", "cpu", "--out", "quick")
    assert status == 0 and (work / "quick" / "quickstart.png").stat().st_size > 1000
    result = json.loads((work / "quick" / "quickstart.json").read_text())
    assert [row["boxes"] for row in result["rows"]] == ["true", "true", "true", "detected"]
    assert str(Path("quick/quickstart.json")) in out


def test_detections_of_another_model(ps_nb, work):
    data = read_cuhk_sysu(work / "twin")
    names = [scene.name for scene in data.gallery]
    rng = np.random.default_rng(0)
    perfect = rng.normal(size=(1 + max(int(scene.ids.max(initial=-1)) for scene in data.gallery), 16))
    ids = np.concatenate([scene.ids for scene in data.gallery])
    features = np.where(ids[:, None] >= 0, perfect[ids], rng.normal(size=(len(ids), 16)))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    queries = perfect[[query.person for query in data.protocol("TestG5").queries]]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    arrays = dict(image=np.repeat(names, [len(scene) for scene in data.gallery]), scores=np.ones(len(ids)), features=features,
                  boxes=np.concatenate([scene.boxes for scene in data.gallery]), query_features=queries)
    np.savez(work / "perfect.npz", **arrays)
    arguments = ("--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "perfect.json")
    assert ps_nb("evaluate", "perfect.npz", *arguments)[0] == 0
    metrics = json.loads((work / "perfect.json").read_text())
    assert metrics["detection"]["recall"] == 1 and metrics["search"]["map"] == pytest.approx(1)
    np.savez(work / "narrow.npz", **arrays | {"query_features": queries[:, :3]})
    np.savez(work / "lacking.npz", **{name: value for name, value in arrays.items() if name != "scores"})
    np.savez(work / "nan.npz", **arrays | {"features": features * np.nan})
    (work / "broken.npz").write_bytes((work / "perfect.npz").read_bytes()[:200])
    (work / "cache.pkl").write_bytes(b"whatever")
    for name, part in (("narrow.npz", "feature"), ("lacking.npz", "scores"), ("nan.npz", "NaN"), ("broken.npz", "broken.npz"),
                       ("no.npz", "no.npz"), ("cache.pkl", "detections_from_lists")):
        status, _, error = ps_nb("evaluate", name, *arguments)
        assert status == 1 and error.count("\n") == 1 and part in error, error


def test_other_models_as_coco_results_and_side_by_side(ps_nb, work):
    data = read_cuhk_sysu(work / "twin")
    rng = np.random.default_rng(1)
    entries = [dict(image_id=scene.name, category_id=1, bbox=[*box[:2].tolist(), *(box[2:] - box[:2]).tolist()], score=1.0)
               for scene in data.gallery for box in scene.boxes]
    ids = np.concatenate([scene.ids for scene in data.gallery])
    queries = data.protocol("TestG5").queries
    directions = rng.normal(size=(len(ids) + 1 + ids.max(), 16))
    features = directions[np.where(ids >= 0, ids, 1 + ids.max() + np.arange(len(ids)))]  # each its own where unlabelled
    mixed = features + 3 * rng.normal(size=features.shape)
    for name, of_people in (("mine", features), ("noisy", mixed)):
        write_json(work / f"{name}.json", entries)
        np.save(work / f"{name}.features.npy", of_people)
        np.save(work / f"{name}.query_features.npy", directions[[query.person for query in queries]])
    common = ("--data", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5")
    status, out, _ = ps_nb("evaluate", "noisy.json", *common, "--out", "noisy_scores.json", "--queries", "ranks.csv", "--worst",
                           "worst.png")
    scores = json.loads((work / "noisy_scores.json").read_text())
    table = pd.read_csv(work / "ranks.csv")
    assert status == 0 and len(table) == len(queries) and (work / "worst.png").stat().st_size > 1000
    assert table["average_precision"].mean() == pytest.approx(scores["search"]["map"])
    assert (table["first_rank"] == 1).mean() == pytest.approx(scores["search"]["top1"])
    assert [len(str(ranks).split()) for ranks in table["ranks"]] == table["found"].tolist()
    status, out, _ = ps_nb("compare", "mine.json", "noisy.json", *common, "--out", "compared.csv")
    compared = pd.read_csv(work / "compared.csv")
    assert status == 0 and len(compared) == 2 * len(PRESETS)
    standard = compared[compared["preset"] == "standard"].set_index("model")
    assert standard["map"]["mine"] == 1 and standard["map"]["noisy"] == pytest.approx(scores["search"]["map"])
    noisy = compared[(compared["preset"] == "standard") & (compared["model"] == "noisy")].iloc[0]
    assert noisy["low"] <= noisy["difference"] == noisy["map"] - 1 <= noisy["high"]
    assert compared[compared["preset"] == "prw_matlab"]["note"].str.contains("camera").all()  # this set has none
    annotations = dict(images=[dict(id=number, file_name=scene.name) for number, scene in enumerate(data.gallery)],
                       categories=[dict(id=1, name="person"), dict(id=2, name="dog")])
    write_json(work / "ids.json", annotations)
    number = {scene.name: i for i, scene in enumerate(data.gallery)}
    numbered = [entry | {"image_id": number[entry["image_id"]]} for entry in entries]
    np.save(work / "numbered.features.npy", mixed)
    np.save(work / "numbered.query_features.npy", np.load(work / "noisy.query_features.npy"))
    write_json(work / "numbered.json", numbered)
    assert ps_nb("evaluate", "numbered.json", *common, "--images", "ids.json", "--out", "again.json")[0] == 0
    assert json.loads((work / "again.json").read_text())["search"] == scores["search"]
    for changed, extra, part in (
        (numbered, (), "--images"), (numbered[1:], ("--images", "ids.json"), "rows"), ({"a": 1}, (), "COCO results"),
        ([numbered[0] | {"bbox": [1, 2, -3, 4]}, *numbered[1:]], ("--images", "ids.json"), "negative size"),
        ([numbered[0] | {"category_id": 2}, *numbered[1:]], (), "categories"),
        ([{"image_id": 0}] * len(numbered), ("--images", "ids.json"), "COCO results"),
    ):
        write_json(work / "numbered.json", changed)
        status, _, error = ps_nb("evaluate", "numbered.json", *common, *extra, "--out", "x.json")
        assert status == 1 and error.count("\n") == 1 and part in error, error
    status, _, error = ps_nb("evaluate", "mine.json", *common, "--out", "early.json", "--worst", "worst.jpg")
    assert status == 1 and "ends in .png" in error and not (work / "early.json").exists()  # said before the work
    status, _, error = ps_nb("compare", "mine.json", "mine.json", *common, "--out", "x.csv")
    assert status == 1 and "mine.json is named twice" in error and error.count("\n") == 1


TRAIN = ["train", "twin", "--format", "cuhk-sysu", "--profile", "smoke"]


@pytest.mark.parametrize("arguments, part", [
    (["data", "check", "twin", "--format", "market"], "market"),
    (["data", "check", "nowhere", "--format", "prw"], "nowhere"),
    (["data", "check", "twin", "--format", "prw"], "cuhk-sysu"),
    (["data", "render", "cuhk-twin", "there", "--profile", "huge"], "huge"),
    (["data", "render", "market-twin", "there"], "market-twin"),
    (["train", "twin", "--format", "cuhk-sysu", "--profile", "tiny"], "tiny"),
    (["train", "twin", "--format", "cuhk-sysu", "--profile", "smoke", "--device", "abacus"], "abacus"),
    (["detect", "nowhere", "twin", "--format", "cuhk-sysu", "--protocol", "TestG5", "--out", "x.npz"], "nowhere"),
    (["evaluate", "x.npz", "--data", "twin", "--format", "cuhk-sysu", "--out", "x.json", "--preset", "best"], "best"),
    (["quickstart", "--profile", "paper"], "PS_NB_CUHK_SYSU"),
    (["reproduce", "e3e"], "e3e"),
    (["reproduce", "e2e", "--set", "seeds"], "seeds"),
    (["reproduce", "e2e", "--set", "seed=1"], "seed"),
    (["reproduce", "e2e", "--jobs", "0"], "--jobs 0"),
    (["reproduce", "e2e", "tab9", "--jobs", "2"], "tab9"),
    (["reproduce", "e2e", "--rehearse", "--missing"], "--rehearse"),
    (["search", "index", "nowhere", "twin", "--out", "index2"], "nowhere"),
    (["recipe", "pairs"], "choose one of oim"),
    (["train", "twin", "--format", "cuhk-sysu", "--recipe", "no.json"], "no.json"),
    (["train", "twin", "--format", "cuhk-sysu", "--recipe", "no.json", "--system", "oim"], "leave out --system oim"),
    ([*TRAIN, "--set", "schedule.epoch=3"], "schedule has no field 'epoch': choose one of epochs, batch_size"),
    ([*TRAIN, "--set", "schedule.epochs=three"], "schedule.epochs: 'three' is not a whole number"),
    ([*TRAIN, "--set", "schedule.epochs=-3"], "schedule.epochs: -3 is out of range"),
    ([*TRAIN, "--set", "schedule.learning_rate=NaN"], "schedule.learning_rate: nan is out of range"),
    ([*TRAIN, "--set", "schedule.epochs"], "field=value"),
    ([*TRAIN, "--set", "objective.crops.epochs=3"], "objective.crops has no field 'epochs'"),
    ([*TRAIN, "--set", "objective.empty_places=none"], "choose left_out or counted"),
    ([*TRAIN, "--set", "objective={}", "--set", "objective.x=1"], "choose one of none"),
    ([*TRAIN, "--set", "detector.heads=three"], "choose separate, softmax, sequential or proposals"),
    ([*TRAIN, "--set", "detector.offset_std=[0.1]", "--set", "detector.backbone=resnet0"], "resnet0"),
    ([*TRAIN, "--set", "name=../oim"], "cannot name a folder"),
    ([*TRAIN, "--weights", "no.pth"], "no.pth; choose objects"),
    ([*TRAIN, "--weights", "twin"], "twin; choose objects"),
    ([*TRAIN, "--weights", "file-" + "0" * 64], "--weights FILE"),
    ([*TRAIN, "--classes", "1,2"], "--format mot"),
    (["data", "check", "twin", "--format", "mot", "--classes", "people"], "as 1,2,7"),
])
def test_mistakes_are_one_line(ps_nb, arguments, part):
    status, _, error = ps_nb(*arguments)
    assert status == 1 and error.count("\n") == 1 and error.startswith("ps-nb: ") and part in error, error


def test_starting_weights_from_a_file(ps_nb, work, monkeypatch):
    taken = []
    monkeypatch.setattr(cli, "trained", lambda recipe, *_: taken.append(recipe) or SimpleNamespace(folder=work))
    torch.manual_seed(5)
    weights = weights_of(Backbone("resnet18"))
    torch.save(weights, work / "mine.pth")
    torch.save({name: value for name, value in weights.items() if "num_batches" not in name}, work / "old.pth")
    for name in ("mine.pth", "old.pth"):
        assert ps_nb(*TRAIN, "--weights", name)[0] == 0
    mine, old = taken
    assert mine != old and mine == replace(oim("smoke"), weights=f"file-{file_checksum(work / 'mine.pth')}")
    identity = run_identity(mine, read_cuhk_sysu(work / "twin"), "smoke", 0)
    assert file_checksum(work / "mine.pth") in identity["weights"] and str(work) not in json_text(identity)
    (work / "mine.pth").unlink()
    for recipe in (mine, old):
        assert torch.equal(starting_backbone(recipe, "smoke").stem.conv1.weight, weights["conv1.weight"])
    assert ps_nb(*TRAIN, "--weights", mine.weights)[0] == 0 and taken[-1] == mine  # by name, once it is kept
    torch.save(weights_of(Backbone("resnet34")) | {"bn1.weight": torch.ones(3)}, work / "other.pth")
    torch.save({**weights, "bn1.weight": weights["bn1.weight"] * torch.nan}, work / "nan.pth")
    torch.save([1, 2], work / "list.pth")
    (work / "text.safetensors").write_text("weights")
    for name, part in (("other.pth", "not for resnet18: bn1.weight"), ("nan.pth", "NaN"), ("list.pth", "no dictionary"),
                       ("text.safetensors", "cannot read")):
        status, _, error = ps_nb(*TRAIN, "--weights", name)
        assert status == 1 and error.count("\n") == 1 and f"{name}" in error and part in error, error


def places(value, path=()):
    "The path of every value in JSON."
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["epochs", "scale", "x"]), inner, max_size=3), max_leaves=6)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), recipe=st.sampled_from([oim("small"), ctxg("small"), joint("smoke"), SYSTEMS["rsiam"]("smoke")]))
def test_a_damaged_recipe_is_one_line_or_a_recipe(data, recipe):
    value = json.loads(json_text(asdict(recipe)))
    *outer, last = data.draw(st.sampled_from([path for path in places(value) if path]))
    place = value
    for key in outer:
        place = place[key]
    if isinstance(last, str) and data.draw(st.booleans()):
        place[data.draw(st.sampled_from(["", "epochs", "scale"]))] = place.pop(last)
    else:
        place[last] = data.draw(ANYTHING)
    try:
        read = recipe_from_json(json.loads(json.dumps(value)))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 900
    else:
        assert recipe_from_json(json.loads(json_text(recipe_to_json(read)))) == read
        assert recipe_from_json(json.loads(json_text(asdict(read)))) == read


def test_classes_of_motchallenge(ps_nb, work):
    folder = work / "video" / "a"
    (folder / "gt").mkdir(parents=True)
    (folder / "img1").mkdir()
    (folder / "seqinfo.ini").write_text("[Sequence]\nseqLength=2\nimWidth=64\nimHeight=48\n")
    for frame in (1, 2):
        Image.new("RGB", (64, 48)).save(folder / "img1" / f"{frame:06d}.jpg")
    rows = [f"{frame},{person},5,5,20,30,1,{kind},1" for frame in (1, 2) for person, kind in ((1, 1), (2, 7), (3, 9))]
    (folder / "gt" / "gt.txt").write_text("\n".join(rows))
    counts = []
    for options in ((), ("--classes", "1,7"), ("--classes", "7,1,9")):
        status, out, _ = ps_nb("data", "check", "video", "--format", "mot", *options)
        assert status == 0
        counts.append(out)
    assert "2 of class 7" in counts[0] and "2 of class 9" in counts[1] and "class 7" not in counts[1] and "class" not in counts[2]


def commands(command, name="ps-nb"):
    "Every command by its words, with its options."
    yield name, {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}")


def spoken():
    "What users read, by where it stands: guides, texts of the package, and the prose of the notebooks."
    for name in ("README.md", "CONTRIBUTING.md"):
        yield name, (ROOT / name).read_text(encoding="utf-8")
    for path in (ROOT / "ps_nb").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield path, "\n".join(node.value for node in ast.walk(tree)
                              if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value)
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_commands_and_options_that_texts_name_exist():
    known = dict(commands(typer.main.get_command(app)))
    for name, own in commands(typer.main.get_command(exported_app)):
        known[name] |= own
    options = set.union(*known.values()) | {"--help"}
    foreign = {"--quiet", "--editable", "--nproc_per_node", "--no-python"}  # of pip and torchrun
    named = {}
    for where, text in spoken():
        for option in re.findall(r"(?<![\w|:-])--[a-z][\w-]*", text):
            assert option in options | foreign, f"{where}: {option}"
        for words in re.findall(r"\bps-nb((?: [a-z]+)+)", text):
            first, *rest = words.split()
            named.setdefault(f"ps-nb {first}", where)
            if any(name.startswith(f"ps-nb {first} ") for name in known) and rest:
                named.setdefault(f"ps-nb {first} {rest[0]}", where)
    assert named.keys() <= known.keys(), {name: where for name, where in named.items() if name not in known}
    assert {"ps-nb train", "ps-nb search query", "ps-nb recipe"} <= named.keys()  # the search finds something


def test_a_full_disk_leaves_no_half_result(tmp_path, monkeypatch):
    import errno
    import os

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    from ps_nb.core import UserError
    with pytest.raises(UserError, match="No space left"):
        write_json(tmp_path / "metrics.json", {"map": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_prints_help():
    done = subprocess.run([Path(sys.executable).parent / "ps-nb", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "quickstart" in done.stdout


def test_threads_are_those_of_the_cores_that_may_be_used(monkeypatch):
    import torch

    from ps_nb import devices

    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(devices, "available_cores", lambda: 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        devices.use_available_cores()
        assert torch.get_num_threads() == before  # said otherwise
        monkeypatch.delenv("OMP_NUM_THREADS")
        devices.use_available_cores()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
