"""Mining on random worlds: what must hold whatever the features are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies
from torch.nn import functional

from ps_nb.clustering.mining import line_up, mine, mine_pass
from ps_nb.clustering.quality import co_appearance, pair_quality
from ps_nb.core import UserError

THRESHOLDS = strategies.floats(-0.5, 0.95)
BETAS = strategies.floats(0, 0.5)


@strategies.composite
def worlds(draw):
    "Features of a few people in a few scenes, who resemble each other in groups; some have not been seen."
    counts = draw(strategies.lists(strategies.integers(0, 4), min_size=1, max_size=8))
    generator = torch.Generator().manual_seed(draw(strategies.integers(0, 10**6)))
    offsets = torch.tensor([0, *counts]).cumsum(0)
    kinds = torch.randn(4, 5, generator=generator)[torch.randint(0, 4, (int(offsets[-1]),), generator=generator)]
    features = functional.normalize(kinds + 0.7 * torch.randn(kinds.shape, generator=generator), dim=1)
    features[torch.rand(len(features), generator=generator) < 0.1] = 0
    return features, offsets


def pairs(features, offsets, **options):
    first, second = mine_pass(features, offsets, **options)
    return set(zip(first.tolist(), second.tolist()))


def scene_of(offsets):
    return torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff()).tolist()


@settings(deadline=None, max_examples=60)
@given(worlds(), THRESHOLDS, BETAS, strategies.integers(0, 3))
def test_one_member_a_scene_in_both_directions_and_never_at_home(world, threshold, beta, rounds):
    features, offsets = world
    found, scene = pairs(features, offsets, threshold=threshold, beta=beta, rounds=rounds), scene_of(offsets)
    assert found == {(second, first) for first, second in found}
    assert len({(first, scene[second]) for first, second in found}) == len(found)
    assert all(scene[first] != scene[second] for first, second in found)
    assert all(features[first].any() and features[second].any() for first, second in found)


@settings(deadline=None, max_examples=60)
@given(worlds(), THRESHOLDS, BETAS, BETAS, strategies.booleans())
def test_clusters_only_grow_with_beta_with_rounds_and_with_a_lower_threshold(world, threshold, beta, more, unique):
    features, offsets = world
    base = pairs(features, offsets, threshold=threshold, beta=beta, rounds=2, unique=unique)
    assert base <= pairs(features, offsets, threshold=threshold, beta=beta, rounds=3, unique=unique)
    if unique:  # without uniqueness a pair that is found early keeps others out
        assert base <= pairs(features, offsets, threshold=threshold, beta=beta + more, rounds=2)
        assert base <= pairs(features, offsets, threshold=threshold - more, beta=beta, rounds=2)
    assert base >= pairs(features, offsets, threshold=threshold, beta=beta, rounds=0, unique=unique)


def literal_hard_positives(features, offsets, threshold, beta, rounds):
    "Eq. 1, 3 and 4 without uniqueness, person by person; a cluster that has a member in a scene stays as it is there."
    scene, similarity = scene_of(offsets), features.double() @ features.double().T
    people = [i for i in range(len(features)) if features[i].any()]
    every = [(i, j) for i in people for j in people if scene[i] != scene[j]]
    found = {(i, j) for i, j in every if similarity[i, j] > threshold}
    for _ in range(rounds):
        together = {}
        for i, j in found:
            key = scene[i], scene[j]
            together[key] = together.get(key, 0.0) + max(0.0, float(similarity[i, j]))
        matched = {(i, scene[j]) for i, j in found}
        found = found | {(i, j) for i, j in every if (i, scene[j]) not in matched and (j, scene[i]) not in matched
                         and similarity[i, j] + beta * together.get((scene[i], scene[j]), 0.0) > threshold}
    return found


@settings(deadline=None, max_examples=60)
@given(worlds(), THRESHOLDS, BETAS, strategies.integers(0, 3))
def test_hard_positives_alone_leave_clusters_that_have_a_member_as_they_are(world, threshold, beta, rounds):
    features, offsets = world
    found = pairs(features, offsets, threshold=threshold, beta=beta, rounds=rounds, unique=False)
    assert found == literal_hard_positives(features, offsets, threshold, beta, rounds)


@settings(deadline=None, max_examples=40)
@given(worlds(), THRESHOLDS)
def test_uniqueness_only_removes_when_nothing_is_added(world, threshold):
    features, offsets = world
    bare = pairs(features, offsets, threshold=threshold, rounds=0, unique=False)
    assert pairs(features, offsets, threshold=threshold, rounds=0) <= bare


@settings(deadline=None, max_examples=40)
@given(worlds(), THRESHOLDS, BETAS, strategies.booleans(), strategies.randoms(use_true_random=False))
def test_the_order_of_scenes_and_the_size_of_blocks_do_not_matter(world, threshold, beta, unique, random):
    features, offsets = world
    options = dict(threshold=threshold, beta=beta, unique=unique)
    order = list(range(len(offsets) - 1))
    random.shuffle(order)
    rows = torch.cat([torch.arange(int(offsets[s]), int(offsets[s + 1])) for s in order]).long()
    moved = torch.tensor([0, *(int(offsets[s + 1] - offsets[s]) for s in order)]).cumsum(0)
    found = {(int(rows[a]), int(rows[b])) for a, b in pairs(features[rows], moved, block=3, **options)}
    assert found == pairs(features, offsets, **options)


@given(worlds(), THRESHOLDS)
@settings(deadline=None, max_examples=30)
def test_asking_for_some_scenes_gives_their_part_of_the_pass(world, threshold):
    features, offsets = world
    scenes = torch.arange(len(offsets) - 1)
    asked = scenes[::2]
    part = set(zip(*(each.tolist() for each in mine(features, offsets, asked, scenes, threshold=threshold))))
    scene = scene_of(offsets)
    assert part == {(a, b) for a, b in pairs(features, offsets, threshold=threshold) if scene[a] % 2 == 0}


def test_equal_people_are_paired_once_and_both_ways():
    features, offsets = functional.normalize(torch.ones(6, 3), dim=1), torch.tensor([0, 2, 4, 6])
    found = pairs(features, offsets, threshold=0.6)
    assert found == {(a, b) for a in (0, 2, 4) for b in (0, 2, 4) if a != b}  # the first of equals, everywhere


def test_nobody_nowhere_and_wrong_input():
    empty = torch.zeros(0, 4)
    assert [len(each) for each in mine_pass(empty, torch.tensor([0]))] == [0, 0]
    assert [len(each) for each in mine_pass(empty, torch.tensor([0, 0, 0]))] == [0, 0]
    assert [len(each) for each in mine_pass(torch.zeros(3, 4), torch.tensor([0, 1, 3]))] == [0, 0]  # nobody seen yet
    assert line_up(torch.tensor([0, 0]), torch.arange(1)).persons.tolist() == []
    with pytest.raises(UserError, match="one row a person"):
        mine_pass(torch.zeros(3, 4), torch.tensor([0, 4]))
    with pytest.raises(UserError, match="beta -1"):
        mine_pass(torch.ones(2, 4), torch.tensor([0, 1, 2]), beta=-1)


def test_quality_of_pairs_by_hand():
    identities, offsets = torch.tensor([0, 1, 0, -1, 0, 1]), torch.tensor([0, 2, 4, 6])
    first, second = torch.tensor([0, 2, 1, 4, 3]), torch.tensor([2, 0, 4, 1, 0])
    assert pair_quality(first, second, identities, offsets) == {"precision": 2 / 4, "recall": 2 / 8}
    nobody = pair_quality(first[:0], second[:0], torch.full((6,), -1), offsets)
    assert np.isnan(nobody["precision"]) and np.isnan(nobody["recall"])
    same_scene_twice = torch.tensor([0, 0, 0])  # labels of one scene that contradict uniqueness can never be found
    both = torch.tensor([0, 2]), torch.tensor([2, 0])
    assert pair_quality(*both, same_scene_twice, torch.tensor([0, 2, 3])) == {"precision": 1.0, "recall": 2 / 4}


def test_a_person_boxed_twice_in_a_scene_is_shared_once():
    assert co_appearance([np.array([4, 4, 1]), np.array([4, 7])]) == {2: (1, 0)}
