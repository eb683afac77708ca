"""R-SiamNet on what nobody would draw: one person, none, boxes smaller than the grid, identical features, a run cut off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ps_nb.clustering.first_neighbours import first_neighbour_clusters
from ps_nb.core import UserError, seed_everything
from ps_nb.data.loading import Augmentation, InputSize, make_batch
from ps_nb.data.scenes import Detections, Scene, SearchSet
from ps_nb.detector.reppoints import RepPointsSearcher, RepPointsSettings
from ps_nb.detector.settings import Sampled
from ps_nb.figures.cases import first_ranks
from ps_nb.reproduction.growth import random_search
from ps_nb.systems.recipes import rsiam
from ps_nb.systems.runs import new_objective, training_scenes
from ps_nb.training import loop
from ps_nb.training.loop import Schedule, train
from ps_nb.training.region_siamese import RegionSiamese, RegionSiameseObjective

SETTINGS = RepPointsSettings(backbone="resnet18", levels=3, channels=16, head_channels=16, tower=1, region_size=(6, 2),
                             crop_size=(96, 32), feature_size=16)  # fmt: skip


@pytest.fixture(scope="module")
def searcher():
    seed_everything(0)
    return RepPointsSearcher(SETTINGS).eval()


def batch_of(*people):
    images = [np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8) for number in range(len(people))]
    return make_batch(images, [np.array(boxes, np.float32).reshape(-1, 4) for boxes in people], list(range(len(people))))


def crowd(*counts):
    return [Scene(str(number), Path(), 128, 96, [[0, 0, 8, 20]] * count, [-1] * count) for number, count in enumerate(counts)]


def step(searcher, batch, counts):
    objective = RegionSiameseObjective(crowd(*counts), SETTINGS)
    losses, sampled = searcher(batch, seed=0)
    losses |= objective(sampled)
    sum(losses.values()).backward()
    objective.update(sampled)
    gradients = [value.grad for value in searcher.parameters() if value.grad is not None]
    assert all(value.isfinite() for value in losses.values()) and all(each.isfinite().all() for each in gradients)
    searcher.zero_grad()
    return objective, losses


def test_a_batch_with_one_person(searcher):
    objective, losses = step(searcher, batch_of([[20, 10, 50, 90]], []), [1, 0])
    assert losses["similarity_consistency"] == losses["contrast"] == 0 and losses["self_consistency"] > 0
    assert objective.memory.norm() == pytest.approx(1, abs=1e-5)


def test_a_batch_with_nobody(searcher):
    objective, losses = step(searcher, batch_of([], []), [0, 0])
    assert losses["self_consistency"] == losses["contrast"] == losses["first_box"] == 0 and len(objective.memory) == 0
    objective.begin_epoch(0)
    assert objective.log == {"clusters": 0}


@pytest.mark.parametrize("box", [[20, 10, 21, 12], [20.2, 10.1, 20.4, 10.3], [-30, -30, 4, 9], [127.5, 95.5, 140, 120]])
def test_boxes_smaller_than_the_grid_or_over_the_border(searcher, box):
    batch = batch_of([box, [40, 10, 80, 90]])
    step(searcher, batch, [2])
    for features in (searcher.embed(batch)[0], searcher.embed_instances(batch)[0]):
        assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)


def test_people_who_claim_one_cell(searcher):
    same = [20, 10, 50, 90]
    step(searcher, batch_of([same, same, [21, 10, 50, 90]]), [3])


def test_identical_features_are_one_cluster_unless_of_one_image():
    features = torch.nn.functional.normalize(torch.ones(500, 64), dim=1)
    assert first_neighbour_clusters(features, torch.arange(500)).max() == 0
    assert first_neighbour_clusters(features, torch.zeros(500, dtype=torch.int64)).max() == 499


@pytest.mark.parametrize("image_filter", ["links", "before", "none"])
def test_clusters_of_one_person_and_of_nobody(image_filter):
    assert first_neighbour_clusters(torch.eye(1), torch.zeros(1, dtype=torch.int64), image_filter).tolist() == [0]
    assert first_neighbour_clusters(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), image_filter).tolist() == []


def test_an_objective_with_crops_needs_a_searcher_with_crops():
    sampled = Sampled(torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 0]))
    with pytest.raises(UserError, match="this searcher has no instance path"):
        RegionSiameseObjective(crowd(1, 1), replace(SETTINGS, feature_size=2))(sampled)
    alone = RegionSiamese(paths="search", self_loss=False, inter_loss=False, clustered=False)
    assert set(RegionSiameseObjective(crowd(1, 1), replace(SETTINGS, feature_size=2), alone)(sampled)) == {"contrast"}


def people_in(folder, count=6):
    draw, scenes = np.random.default_rng(0), []
    for number in range(count):
        path = Path(folder) / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(path)
        scenes.append(Scene(path.name, path, 128, 96, [[10, 10, 40, 90], [70, 5, 100, 80]][: 1 + number % 2],
                            [number % 3, -1][: 1 + number % 2]))
    return scenes


def test_runs_of_boxes_alone_see_no_identity(tmp_path):
    data = SearchSet("few", people_in(tmp_path), [])
    assert all((scene.ids == -1).all() for scene in training_scenes(rsiam("smoke"), data))
    objective = new_objective(rsiam("smoke"), data)
    assert objective.images.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5]
    assert {name for name, _ in objective.named_buffers()} == {"images", "memory", "labels"}
    assert objective.rows.values.tolist() == [*range(9), -2]  # numbers of rows, not of people


class Cut(Exception):
    pass


def test_a_run_cut_off_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    scenes = people_in(tmp_path)

    def learn(folder, cut_at=None):
        seed_everything(0)
        steps = 0
        ordinary = loop.train_step

        def counted(*arguments):
            nonlocal steps
            steps += 1
            if steps == cut_at:
                raise Cut
            return ordinary(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", counted)
            patch.setattr(loop, "SAVE_EVERY", 0.0)
            searcher, objective = RepPointsSearcher(SETTINGS), RegionSiameseObjective(scenes, SETTINGS)
            train(searcher, objective, scenes, Augmentation((InputSize(96, 128),)), Schedule(2, 2, 0.02, warm_up_steps=2), folder,
                  device="cpu", precision="no")  # fmt: skip
        return {**searcher.state_dict(), **{f"objective.{name}": value for name, value in objective.state_dict().items()}}

    whole = learn(tmp_path / "whole")
    with pytest.raises(Cut):
        learn(tmp_path / "cut", cut_at=6)  # the third step of the second epoch, whose labels must be those of its start
    finished = learn(tmp_path / "cut")
    assert all(torch.equal(value, finished[name]) for name, value in whole.items())


def test_where_nobody_is_found_nobody_comes_first():
    data, found = random_search(scenes=8, queries=3, gallery_size=5, people_per_scene=2, dimension=4, seed=0)
    nobody = Detections(found.names, np.zeros(9), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)), found.query_features)
    assert first_ranks(nobody, data, "random").tolist() == [2, 2, 2]
