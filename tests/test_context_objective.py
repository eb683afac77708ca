"""Weak supervision is what it says: identities never reach the objective, the searcher or the loop; and input at the edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ps_nb.clustering.density import choose_eps
from ps_nb.core import UserError
from ps_nb.data.scenes import Detections, Scene
from ps_nb.data.training_sets import with_boxes, without_identities
from ps_nb.detector.settings import DetectorSettings, Sampled
from ps_nb.losses.contrast import centroid_contrast, hard_negatives, quadruplet
from ps_nb.systems import runs
from ps_nb.systems.recipes import OBJECTIVES, cgps
from ps_nb.systems.two_step import trained_on_crops, two_step
from ps_nb.training.contexts import ContextObjective, Contexts


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("PS_NB_RUNS", str(tmp_path_factory.mktemp("runs")))
    yield runs.search_set("cuhk-sysu", "smoke")
    patch.undo()


def test_identities_never_reach_training(data, monkeypatch):
    seen = []

    def spy(name):
        original = getattr(runs, name)

        def watched(*arguments, **options):
            for value in (*arguments, *options.values()):
                seen.extend(value if isinstance(value, list) else getattr(value, "scenes", []))
            return original(*arguments, **options)
        monkeypatch.setattr(runs, name, watched)

    class Watched(ContextObjective):
        def __init__(self, scenes, *others):
            seen.extend(scenes)
            super().__init__(scenes, *others)

    monkeypatch.setitem(OBJECTIVES, Contexts, Watched)
    spy("train")
    recipe = cgps("smoke")
    told = runs.trained(recipe, data, "smoke", device="cpu")
    scenes = [each for each in seen if isinstance(each, Scene)]
    assert len(scenes) == 2 * len(data.train) and all((scene.ids == -1).all() for scene in scenes)
    untold = runs.trained(recipe, replace(data, train=without_identities(data.train)), "smoke", device="cpu")
    assert told.folder != untold.folder
    for name, value in told.searcher.state_dict().items():
        assert torch.equal(value, untold.searcher.state_dict()[name]), name
    for one, other in zip(told.facts["log"], untold.facts["log"]):
        different = {name for name in one if one[name] != other[name]} - {"clustering_seconds"}
        assert different <= {"cluster_precision", "cluster_recall"}, "the log alone compares with the truth"
        assert {"clusters", "unclustered", "same_scene_pairs", "clustering_seconds", "cluster_recall"} <= set(one)
        assert other["cluster_precision"] is None


def test_scenes_in_which_nothing_was_found_are_background(data):
    boxes = [scene.boxes if number % 3 == 0 else scene.boxes[:0] for number, scene in enumerate(data.train)]
    offsets = np.cumsum([0, *map(len, boxes)])
    found = Detections([scene.name for scene in data.train], offsets, np.concatenate(boxes), np.ones(offsets[-1]),
                       np.zeros((offsets[-1], 0)))
    recipe = cgps("smoke")
    recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=1, batch_size=2))
    run = runs.trained(recipe, with_boxes(data, found, 0.5), "smoke", device="cpu")
    assert np.isfinite(run.facts["log"][0]["contrast"])


@pytest.mark.parametrize("method", ["sbl", "spcl"])
def test_identities_never_reach_the_rivals_on_crops(data, method):
    blind = replace(data, train=without_identities(data.train))
    told, untold = (trained_on_crops(two_step(method, "smoke"), each, "smoke", device="cpu") for each in (data, blind))
    assert told.folder != untold.folder and told.facts["log"] == untold.facts["log"]
    for name, value in told.searcher.state_dict().items():
        assert torch.equal(value, untold.searcher.state_dict()[name]), name


def scene(people):
    boxes = [[10 * i, 0, 10 * i + 8, 20] for i in range(people)]
    return Scene(f"s{people}", f"s{people}.jpg", 64, 48, boxes, [-1] * people)


def test_one_person_in_all():
    objective = ContextObjective([scene(1)], DetectorSettings(feature_size=4))
    objective.memory.features.copy_(torch.eye(4)[:1])
    objective.begin_epoch(0)
    features = torch.eye(4)[:2].requires_grad_()
    losses = objective(Sampled(features, torch.tensor([0, 0]), torch.tensor([0, -1])))
    assert losses["contrast"] == 0 and torch.isfinite(losses["quadruplet"])


def test_only_background_in_the_batch():
    objective = ContextObjective([scene(2)], DetectorSettings(feature_size=4))
    objective.memory.features.copy_(torch.eye(4)[:2])
    objective.begin_epoch(0)
    features = torch.eye(4)[:3].requires_grad_()
    sampled = Sampled(features, torch.zeros(3, dtype=torch.long), torch.full((3,), -1))
    losses = objective(sampled)
    sum(losses.values()).backward()
    assert losses["contrast"] == losses["quadruplet"] == 0 and features.grad.abs().sum() == 0
    objective.update(sampled)
    assert torch.equal(objective.memory.features, torch.eye(4)[:2]), "a row that nobody visits stays"


def test_one_cluster_has_no_negatives():
    features = torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    assert centroid_contrast(features, torch.zeros(5, dtype=torch.long), features[:1], 0.05, hard_negative_ratio=0.6) == 0


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_the_count_of_hard_negatives_is_the_nearest_to_the_share(share):
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(20, 30, generator=generator).sort(dim=1, descending=True).values
    for strategy, amount in (("similarity", similarity), ("confidence", (similarity / 0.2).exp())):
        for row, count in zip(amount.double(), hard_negatives(similarity, share, strategy, 0.2).tolist()):
            misses = [abs(row[:k].sum() / row.sum() - share) for k in range(1, 31)]
            assert abs(misses[count - 1] - min(misses)) < 1e-5


def test_words_that_do_not_exist():
    features = torch.eye(3)
    with pytest.raises(UserError, match="choose one of confidence, similarity, number"):
        hard_negatives(features, 0.5, "luck", 0.05)
    with pytest.raises(UserError, match="choose one of inner, euclidean"):
        quadruplet(features, torch.arange(3), features, form="cosine")


def test_eps_is_fixed_or_chosen_before_the_first_or_every_epoch():
    generator = np.random.default_rng(0)
    scenes = [Scene(f"{number}.jpg", f"{number}.jpg", 99, 99, [[9 * i, 0, 9 * i + 8, 20] for i in range(4)], [-1] * 4)
              for number in range(40)]
    places = np.repeat(np.arange(40), 4)
    people = np.tile(np.arange(4), 40) + 4 * (places // 4)  # everybody is in four scenes

    def noisy(noise):
        rows = np.random.default_rng(5).standard_normal((40, 8))[people] + noise * generator.standard_normal((160, 8))
        return torch.nn.functional.normalize(torch.from_numpy(rows.astype(np.float32)), dim=1)

    early, late = noisy(0.3), noisy(0.6)
    wanted = [choose_eps(features, places, 8, 3, 2, bound=0.05) for features in (early, late)]
    assert wanted[0] != wanted[1]
    found = {}
    for choice in ("fixed", "first", "every"):
        settings = Contexts(k1=8, k2=3, min_samples=2, eps=0.42, eps_choice=choice, wrong_fraction=0.05)
        objective = ContextObjective(scenes, DetectorSettings(feature_size=8), settings)
        for epoch, features in enumerate((early, late)):
            objective.memory.features.copy_(features)
            objective.begin_epoch(epoch)
            found.setdefault(choice, []).append(objective.log["eps"])
        restored = ContextObjective(scenes, DetectorSettings(feature_size=8), settings)
        restored.load_state_dict(objective.state_dict())
        assert float(restored.eps) == objective.log["eps"]  # a resumed run goes on with it
    assert found == {"fixed": [0.42, 0.42], "first": [wanted[0]] * 2, "every": wanted}
    strict = ContextObjective(scenes, DetectorSettings(feature_size=8), replace(settings, wrong_fraction=0.0))
    strict.memory.features.copy_(early)
    strict.begin_epoch(0)  # a bound of nobody is a bound
    assert strict.log["eps"] == choose_eps(early, places, 8, 3, 2, bound=0.0) < wanted[0]
