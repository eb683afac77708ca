"""Training without names: identities cannot reach it, and poor input has a rule."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import SETTINGS, write_scenes

from ps_nb.core import seed_everything
from ps_nb.data.loading import Augmentation, InputSize
from ps_nb.data.scenes import Scene, SearchSet
from ps_nb.detector.searcher import PersonSearcher
from ps_nb.detector.settings import DetectorSettings, Sampled
from ps_nb.losses.members import member_loss
from ps_nb.systems.recipes import cucps
from ps_nb.systems.runs import new_objective
from ps_nb.training.co_appearance import CoAppearanceObjective, Mining
from ps_nb.training.loop import Schedule, train


def objective_of(people, feature_size, **settings):
    scenes = [Scene(str(number), Path(), 64, 48, [[0, 0, 8, 20]] * count, [-1] * count) for number, count in enumerate(people)]
    return CoAppearanceObjective(scenes, DetectorSettings(feature_size=feature_size), Mining(**settings))


def relabelled(scenes, rule):
    return [replace(scene, ids=rule(scene)) for scene in scenes]


def run(scenes, folder, interrupt=None):
    seed_everything(0)
    searcher = PersonSearcher(replace(SETTINGS, encoders=2))
    recipe = replace(cucps("smoke"), detector=searcher.settings, objective=Mining(threshold=0.1, warm_up_epochs=1))
    objective = new_objective(recipe, SearchSet("tiny", scenes, []))
    schedule = Schedule(epochs=3, batch_size=4, learning_rate=0.01, warm_up_steps=2, milestones=())
    log = train(searcher, objective, scenes, Augmentation((InputSize(96, 128),)), schedule, folder, device="cpu", precision="no")
    return searcher, objective, log


def test_identities_make_no_difference(tmp_path):
    scenes = write_scenes(tmp_path)
    told, memory, log = run(scenes, tmp_path / "told")
    nobody = relabelled(scenes, lambda scene: np.full(len(scene), -1))
    untold, other, other_log = run(nobody, tmp_path / "untold")
    assert log == other_log and log[-1]["mining"] > 0 and log[-1]["members"] > 0
    assert all(torch.equal(a, b) for a, b in zip(told.state_dict().values(), untold.state_dict().values()))
    assert torch.equal(memory.memory.features, other.memory.features)


def test_an_epoch_begun_before_a_checkpoint_is_the_epoch_after_it():
    objective, resumed = (objective_of([2], 4, warm_up_epochs=1) for _ in range(2))
    objective.begin_epoch(2)
    resumed.load_state_dict(objective.state_dict())
    assert resumed.epoch == 2


def sampled(features, scenes, persons):
    features = torch.nn.functional.normalize(torch.as_tensor(features, dtype=torch.float), dim=1).requires_grad_()
    return Sampled(features, torch.tensor(scenes), torch.tensor(persons))


@pytest.mark.parametrize("threshold", [-5.0, 0.6, 5.0])
def test_everybody_somebody_or_nobody_is_similar_enough(threshold):
    objective = objective_of([1, 0, 2, 1], 4, threshold=threshold, warm_up_epochs=0)
    regions = sampled(np.random.default_rng(0).normal(size=(5, 4)), [0, 2, 2, 3, 3], [0, 0, 1, 0, -1])
    for epoch in range(3):
        objective.begin_epoch(epoch)
        loss = objective(regions)["mining"]
        loss.backward()
        objective.update(regions)
        assert torch.isfinite(loss) and torch.isfinite(regions.features.grad).all()
    members = objective.members(regions.scenes[:4], torch.arange(4))
    assert members.diagonal().all() and not members[1, 2]  # oneself, and never a neighbour
    assert (members.sum() == 4) if threshold > 1 else (members.sum() >= 4)
    if threshold < -1:
        assert members.sum(dim=1).min() >= 2 or objective.log["matched"] > 0


def test_a_batch_of_background_only_and_a_world_of_one_person():
    objective = objective_of([1], 4, warm_up_epochs=0)
    nothing = sampled(np.ones((2, 4)), [0, 0], [-1, -1])
    loss = objective(nothing)["mining"]
    loss.backward()
    objective.update(nothing)
    assert loss == 0 and not objective.memory.features.any()
    alone = sampled(np.ones((1, 4)), [0], [0])
    objective.update(alone)
    assert objective(alone)["mining"].abs() < 1e-6  # the only person there is has nobody to be confused with


def test_a_person_seen_twice_in_a_step_moves_twice():
    objective = objective_of([1, 1], 2)
    objective.update(sampled([[1, 0], [0, 1], [1, 0]], [0, 0, 1], [0, 0, 0]))
    rows = objective.memory.features
    assert torch.allclose(rows[0], torch.full((2,), 0.5**0.5)) and rows[1].tolist() == [1, 0]


def test_the_loss_falls_when_a_member_comes_nearer():
    memory = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    members = torch.zeros(1, 50, dtype=torch.bool)
    members[0, 3] = True
    far = member_loss(-memory[3:4], memory, members, 0.1, 0.1)
    assert member_loss(memory[3:4], memory, members, 0.1, 0.1) < far
