"The joint network of Xiao et al. 2016 and what surrounds it: sampled classes, crops of any size, detectors that find nobody."
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ps_nb.core import UserError, numpy_generator
from ps_nb.data.scenes import Detections, Scene
from ps_nb.detector.backbones import Backbone
from ps_nb.detector.settings import DetectorSettings, Sampled
from ps_nb.evaluation.detection import evaluate_detection
from ps_nb.evaluation.settings import EvaluationSettings
from ps_nb.losses.softmax import draw_classes, sampled_softmax
from ps_nb.reproduction.joint_rows import precision_at, recall_thresholds
from ps_nb.systems.recipes import deep, idnet, joint, training_strategies
from ps_nb.systems.runs import new_network
from ps_nb.training.crops import background_boxes, crop_batch, cut_out, embed_crops, training_crops
from ps_nb.training.identities import Classification, ClassificationObjective

COUNTS = st.tuples(st.integers(1, 40), st.integers(2, 60), st.integers(0, 999))


def drawn_scores(classes, seed, samples=12):
    torch.manual_seed(seed)
    return torch.randn(samples, classes + 1, requires_grad=True), torch.randint(-1, classes + 1, (samples,))


@settings(max_examples=50, deadline=None)
@given(COUNTS)
def test_the_three_rules_hold_whatever_is_drawn(numbers):
    classes, count, seed = numbers
    _, targets = drawn_scores(classes, seed)
    targets = targets.clamp(min=0)
    drawn = draw_classes(targets, classes, count)
    assert drawn.shape == (12, min(count, classes + 1)) and torch.equal(drawn[:, 0], targets)
    assert (drawn == classes).sum(dim=1).eq(1).all() and drawn.min() >= 0 and drawn.max() <= classes
    assert all(len(set(row)) == drawn.shape[1] for row in drawn.tolist())


@settings(max_examples=50, deadline=None)
@given(COUNTS)
def test_sampling_lowers_the_loss_and_moves_sampled_scores_only(numbers):
    classes, count, seed = numbers
    scores, targets = drawn_scores(classes, seed)
    whole, sampled = sampled_softmax(scores, targets), sampled_softmax(scores, targets, count)
    assert sampled <= whole + 1e-5
    if (targets >= 0).any():
        assert torch.isclose(whole, functional.cross_entropy(scores, targets, ignore_index=-1), atol=1e-5)
    sampled.backward()
    assert scores.grad.sum(dim=1).abs().max() < 1e-6  # what the right class gains the others lose
    assert not scores.grad[targets < 0].any()
    assert (scores.grad != 0).sum(dim=1).max() <= min(count, classes + 1)


def test_the_two_normalisations_differ_by_the_share_of_labelled_regions():
    scores, targets = drawn_scores(9, 0)
    share = (targets >= 0).float().mean()
    assert torch.isclose(sampled_softmax(scores, targets, average_over="sampled"), share * sampled_softmax(scores, targets))


@pytest.mark.parametrize("average_over", ["labelled", "sampled"])
@pytest.mark.parametrize("samples", [0, 3])
def test_nobody_with_an_identity_costs_nothing(average_over, samples):
    scores = torch.zeros(samples, 4, requires_grad=True)
    loss = sampled_softmax(scores, torch.full((samples,), -1), 3, average_over)
    loss.backward()
    assert loss == 0 and not scores.grad.any()


def test_questions_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="draw 2 or more"):
        draw_classes(torch.tensor([0]), 3, 1)
    with pytest.raises(UserError, match="choose labelled or sampled"):
        ClassificationObjective([], DetectorSettings(), Classification(average_over="people"))
    nobody = torch.zeros(0, dtype=torch.long)
    with pytest.raises(UserError, match="softmax heads"):
        one = ClassificationObjective([Scene("a", Path("a"), 9, 9, [[0, 0, 5, 5]], [0])], DetectorSettings())
        one(Sampled(torch.zeros(0, 2), nobody, nobody))
    with pytest.raises(UserError, match="choose separate, softmax, sequential or proposals"):
        new_network(replace(joint("smoke").detector, heads="triple"), 3)
    with pytest.raises(UserError, match="choose 16"):
        Backbone("vgg16", stride=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-60, 160), min_size=4, max_size=4))
def test_a_crop_of_any_box_has_a_pixel_and_lies_inside(corners):
    image = np.arange(100 * 80, dtype=np.int64).reshape(80, 100, 1).repeat(3, axis=2)
    low, high = np.minimum(corners[:2], corners[2:]), np.maximum(corners[:2], corners[2:])
    crop, = cut_out(image, np.array([[*low, *high]], np.float32))
    assert 1 <= crop.shape[0] <= 80 and 1 <= crop.shape[1] <= 100 and np.isin(crop, image).all()


def test_crops_of_a_pixel_and_of_one_colour_are_described():
    searcher = new_network(joint("smoke").detector, 3).eval()
    flat = np.full((40, 60, 3), 90, np.uint8)
    boxes = np.array([[5, 5, 5, 5], [0, 0, 60, 40], [58, 38, 90, 90]], np.float32)
    features = embed_crops(flat, boxes, searcher, 64, 32)
    assert features.shape == (3, searcher.settings.feature_size) and np.isfinite(features).all()
    assert np.allclose(features, features[:1], atol=1e-5)  # one colour is one colour at every size
    assert crop_batch(cut_out(flat, boxes), 64, 32, numpy_generator(0, "crops")).shape == (3, 3, 64, 32)


def test_nobody_to_classify_and_no_room_for_background():
    strangers = [Scene("a.png", Path("a.png"), 60, 40, [[0, 0, 20, 40]], [-1])]
    with pytest.raises(UserError, match="no identities"):
        training_crops(strangers, 0)
    full = Scene("b.png", Path("b.png"), 30, 30, [[0, 0, 30, 30]], [0])
    assert background_boxes(full, 3, np.array([[60.0, 60.0]]), numpy_generator(0, "background")).shape == (0, 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.floats(0.05, 1))
def test_a_threshold_reaches_its_recall_and_the_next_higher_does_not(seed, wanted):
    draw = np.random.default_rng(seed)
    boxes = np.array([[20 * i, 0, 20 * i + 16, 40] for i in range(8)], np.float32)
    scenes = [Scene("s", Path("s"), 200, 60, boxes, [-1] * 8)]
    moved = boxes + np.where(draw.random((8, 1)) < 0.3, 500, 0).astype(np.float32)
    found = Detections(("s",), [0, 8], moved, draw.random(8).round(1), np.zeros((8, 0)))

    def recall(threshold):
        return evaluate_detection(found, scenes, EvaluationSettings(detection_score_threshold=threshold))["recall"]

    reached = recall_thresholds(found, scenes, [wanted])
    assert (wanted in reached) == (recall(0.0) >= wanted)
    for threshold in reached.values():
        assert recall(threshold) >= wanted > recall(threshold + 0.05)
    curve = precision_at(found, scenes, [wanted])
    assert set(curve) == set(reached) and all(0 < precision <= 1 for precision in curve.values())


def test_a_detector_that_finds_nobody_has_no_recall():
    scenes = [Scene("s", Path("s"), 200, 60, [[0, 0, 20, 40]], [0])]
    nothing = Detections(("s",), [0, 0], np.zeros((0, 4), np.float32), np.zeros(0), np.zeros((0, 0)))
    assert recall_thresholds(nothing, scenes, [0.4]) == {} == precision_at(nothing, scenes, [0.4])


@pytest.mark.parametrize("profile", ["smoke", "small", "paper"])
def test_nine_artefacts_stand_on_five_trainings(profile):
    plain, started, sampled = training_strategies(profile).values()
    assert sampled == joint(profile) and idnet(started) == idnet(sampled)
    trainings = {repr(recipe) for recipe in (plain, started, sampled, deep(profile), idnet(sampled))}
    assert len(trainings) == 5
