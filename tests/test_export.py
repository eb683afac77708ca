"""Exported searchers give what PyTorch gives, for every system, and search without PyTorch; what has no ONNX form is refused."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ps_nb import cli, start
from ps_nb.core import UserError, read_json, save_tensors, seed_everything, write_json
from ps_nb.data.images import InputSize
from ps_nb.detector.inference import detect_image, embed_boxes
from ps_nb.search import export
from ps_nb.search.export import TOLERANCES, export_searcher, noise_image
from ps_nb.search.exported import detect_exported, embed_exported, load_exported
from ps_nb.search.index import load_index
from ps_nb.systems.recipes import cgps, ctxg, cucps, deep, joint, oim, recipe_to_json, rsiam, seqnet
from ps_nb.systems.runs import new_network

pytestmark = pytest.mark.skipif(not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")),
                                reason="onnx and onnxruntime are not installed: pip install 'ps_nb[onnx]'")
BY_SETTINGS = {}  # systems of equal networks are exported once
for make in (oim, ctxg, cgps, rsiam, cucps, joint):
    BY_SETTINGS.setdefault(replace(make("smoke").detector, background_copies=0) if make is not rsiam else
                           make("smoke").detector, []).append(make.__name__)
BY_SETTINGS[replace(oim("smoke").detector, region_pooling="max", region_size=(8, 4), own_stage=False, encoders=1,
                    refined_features=False, stride=16)] = ["regions-by-maximum"]
BY_SETTINGS |= {joint("paper").detector: ["vgg16"], seqnet("smoke").detector: ["seqnet"]}
NETWORKS = {"-".join(names): settings for settings, names in BY_SETTINGS.items()}


def lively(settings):
    "An untrained searcher that finds people of several scores in noise, its statistics unlike those of a new layer."
    seed_everything(1)
    searcher = new_network(settings, 7).eval()
    for module in searcher.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        if settings.heads == "points":
            searcher.heads.score.bias.fill_(0.0)
            for layer in (searcher.heads.first, searcher.heads.shift, searcher.heads.score):
                layer.weight.mul_(20)
        else:
            for layer in (getattr(searcher.heads, "score", None), searcher.heads.offset, searcher.proposals.head.bbox_pred,
                          searcher.proposals.head.cls_logits):
                if layer is not None:
                    layer.weight.mul_(5)
            if settings.heads == "sequential":  # it scores the largest values of a region, not their mean
                searcher.heads.score.weight.mul_(0.02)
    return searcher


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_finds_what_its_searcher_finds(tmp_path, name):
    searcher, size = lively(NETWORKS[name]), InputSize(100, 180)
    differences = export_searcher(searcher, size, "abc", tmp_path / "model.onnx")
    assert differences.keys() == TOLERANCES.keys() and max(differences.values()) > 0  # two programs, not one asked twice
    model = load_exported(tmp_path / "model.onnx")
    assert (model.size, model.fingerprint, model.detections) == (size, "abc", searcher.settings.detections)
    for height, width in ((160, 240), (312, 96), (64, 64)):  # none is of the size that was recorded
        image, boxes = noise_image(height, width)
        ours, theirs = detect_image(searcher, image, size), detect_exported(model, image)
        assert len(ours[1]) == len(theirs[1]) > 2 and np.ptp(ours[1]) > 1e-4
        for first, second, tolerance in zip(ours, theirs, (0.05 * max(1, height / 100), 1e-4, 1e-4)):
            np.testing.assert_allclose(second, first, atol=tolerance)
        np.testing.assert_allclose(embed_exported(model, image, boxes), embed_boxes(searcher, image, boxes, size), atol=1e-4)
    blank = np.zeros((8, 200, 3), np.uint8)
    assert embed_exported(model, blank, np.zeros((0, 4))).shape == (0, ours[2].shape[1])


def test_what_cannot_be_exported_is_one_line_and_leaves_no_file(tmp_path, monkeypatch):
    path, small = tmp_path / "model.onnx", NETWORKS["joint"]
    with pytest.raises(UserError, match="ProposalSearcher has no ONNX form"):
        export_searcher(new_network(replace(deep("smoke").detector, backbone="resnet18"), 0), InputSize(9, 9), "abc", path)
    monkeypatch.setattr(export, "TOLERANCES", dict.fromkeys(TOLERANCES, 0.0))
    with pytest.raises(UserError, match="is not written: its .* differ from PyTorch's"):
        export_searcher(lively(small), InputSize(90, 90), "abc", path)
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install 'ps_nb\[onnx\]'"):
        export_searcher(lively(small), InputSize(90, 90), "abc", path)
    path.write_text("")
    with pytest.raises(UserError, match="onnxruntime, which is not installed"):
        load_exported(path)
    path.unlink()
    assert not list(tmp_path.iterdir())


WITHOUT_TORCH = """
import sys
from ps_nb.start import start_command
try:
    start_command()
finally:
    if "torch" in sys.modules:
        raise AssertionError("PyTorch was imported")
"""


def test_a_search_without_torch(tmp_path, monkeypatch, capsys):
    recipe = oim("smoke")
    searcher, run = lively(recipe.detector), tmp_path / "run"
    save_tensors(run / "searcher.safetensors", searcher.state_dict())
    write_json(run / "run.json", {"recipe": recipe_to_json(recipe), "identities": 7})
    (tmp_path / "photos").mkdir()
    for number, shape in enumerate(((160, 240), (120, 96))):
        Image.fromarray(noise_image(*shape)[0]).save(tmp_path / "photos" / f"{number}.png")

    def run_words(*words):
        monkeypatch.setattr(sys, "argv", ["ps-nb", *words])
        with pytest.raises(SystemExit) as ended:
            start.start_command()
        told = capsys.readouterr()
        return ended.value.code or 0, told.out, told.err

    def torch_free(*words):
        done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    monkeypatch.chdir(tmp_path)
    status, printed, _ = run_words("export", "run", "model.onnx")
    assert status == 0 and "largest differences from PyTorch: boxes" in printed
    assert run_words("search", "index", "run", "photos", "--out", "by-torch")[0] == 0
    status, _, errors = run_words("search", "index", "photos", "--out", "by-file", "--model", "model.onnx")
    assert status == 0, errors
    torchs, files = (load_index(tmp_path / name, cli.feature_fingerprint(cli.load_run(run))) for name in ("by-torch", "by-file"))
    assert len(torchs) == len(files) > 5  # one fingerprint: either serves the other
    np.testing.assert_allclose(files.detections.features, torchs.detections.features, atol=1e-4)
    query = ("search", "query", "by-torch", "photos/0.png", "--box", "10,10,90,150", "--out", "found", "--keep-own", "--model")
    status, printed, errors = torch_free(*query, "model.onnx")
    assert status == 0 and not errors and printed.endswith("search.png\n") and (tmp_path / "found" / "search.png").exists()
    assert read_json(tmp_path / "found" / "search.json")["people"][0]["similarity"] <= 1
    (tmp_path / "text.onnx").write_text("no graph")
    for name, part in (("text.onnx", "no ONNX file"), ("absent.onnx", "no such file")):
        status, _, errors = run_words(*query, name)
        assert status == 1 and errors.startswith("ps-nb: ") and part in errors and errors.count("\n") == 1
    import onnx

    model = onnx.load("model.onnx")
    facts = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps(facts | {"fingerprint": "another"})
    onnx.save(model, "other.onnx")
    status, _, errors = run_words(*query, "other.onnx")
    assert status == 1 and "was made by model" in errors and errors.count("\n") == 1
