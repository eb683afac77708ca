"""Fields have the field's names today; hashes of recipes, and what runs before have written, know them by their first."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import ps_nb
from ps_nb.baselines.unsupervised_reid import reid_training
from ps_nb.core import RENAMED, UserError, fingerprint, first_names, json_text, save_tensors, write_json
from ps_nb.systems import recipes
from ps_nb.systems.recipes import PROFILES, cgps, ctxg, cucps, joint, oim, recipe_from_json, recipe_to_json, rsiam
from ps_nb.systems.runs import load_run, new_network
from ps_nb.systems.two_step import METHODS, two_step
from ps_nb.training.loop import Schedule, filling, load_checkpoint, load_optimiser, new_optimiser, save_checkpoint

FINGERPRINTS = {  # of commit 9e31783, before any field was renamed; joint, whose crops have lost their queue, of a later one
    "cgps": (cgps("paper"), "f9c31bf2c0f9"),
    "rsiam": (rsiam("paper"), "6424872823fd"),
    "joint": (joint("paper"), "57891fbbde4f"),
    "cucps": (cucps("paper", "prw"), "4c345453c2ee"),
    "oim": (oim("smoke"), "870878581b7b"),
    "ctxg": (ctxg("smoke"), "055cc4e1895c"),
    "spcl": (two_step("spcl", "small"), "965779197f6a"),
}


def before(record):
    "`record` as a run.json of before the renaming holds it."
    return json.loads(json_text(recipes.recipe_identity(record)))


def fields_of_records():
    "Names of the annotated fields of every class of the package by its name."
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(ps_nb.__file__).parent.glob("*/*.py")]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {each.name: {line.target.id for line in each.body if isinstance(line, ast.AnnAssign)} for each in classes}


def test_the_table_names_fields_that_are_there_today():
    fields = fields_of_records()
    for record, names in RENAMED.items():
        assert set(names.values()) <= fields[record] and not set(names) & fields[record], record


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_recipe_keeps_its_fingerprint(name):
    recipe, printed = FINGERPRINTS[name]
    assert fingerprint(recipes.recipe_identity(recipe)) == printed
    assert fingerprint(recipe_to_json(recipe)) != printed  # its JSON has today's names


def test_settings_of_other_runs_keep_their_fingerprints():
    training = reid_training("mlc", "small")
    assert fingerprint(first_names(training, dataclasses.asdict(training))) == "5bce339a9fe4"


@pytest.mark.parametrize("profile", PROFILES)
def test_a_recipe_of_before_is_read(profile):
    for recipe in (oim(profile), ctxg(profile), cgps(profile), rsiam(profile), joint(profile), cucps(profile)):
        assert before(recipe) != json.loads(json_text(recipe_to_json(recipe)))
        assert recipe_from_json(before(recipe)) == recipe
    for method in METHODS:
        settings = two_step(method, profile)
        assert recipe_from_json(before(settings), type(settings)) == settings


def test_a_run_of_before_is_loaded(tmp_path):
    recipe = cgps("smoke")
    searcher = new_network(recipe.detector, 3)
    save_tensors(tmp_path / "searcher.safetensors", searcher.state_dict())
    write_json(tmp_path / "run.json", {"recipe": before(recipe), "identities": 3})
    run = load_run(tmp_path, "cpu")
    assert run.recipe == recipe and torch.equal(run.searcher.heads.score.weight, searcher.heads.score.weight)


def test_a_checkpoint_of_before_is_refused_in_one_line(tmp_path):
    optimiser = new_optimiser(nn.Linear(2, 2), Schedule())
    state = optimiser.state_dict()
    for group in state["param_groups"]:
        group["share"] = group.pop("learning_rate_multiplier")
    save_checkpoint(tmp_path / "checkpoint.pt", {"optimiser": state})
    with pytest.raises(UserError, match="made by another version: delete it"), filling(tmp_path / "checkpoint.pt"):
        load_optimiser(optimiser, load_checkpoint(tmp_path / "checkpoint.pt")["optimiser"])
