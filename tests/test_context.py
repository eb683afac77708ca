"""Context: pairs against a slow search, invariants of attention, graph and re-ranking, and input that does not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_nb.core import UserError
from ps_nb.data.scenes import Detections, Protocol, Query
from ps_nb.detector.parts import (
    RelativeAttention,
    flatten_parts,
    only_part,
    pool_parts,
    relative_similarity,
    row_weights,
    split_parts,
)
from ps_nb.evaluation.ranking import evaluate
from ps_nb.evaluation.settings import EvaluationSettings
from ps_nb.graph.crowd import Asked, companions, make_crowd
from ps_nb.graph.layers import PairGraph, SiameseGraph, best_pairs, normalised, star
from ps_nb.graph.learning import train_scorer
from ps_nb.graph.scorer import (
    ContextScorer,
    GraphSettings,
    asked_by,
    attention_rescorer,
    context_rescorer,
    joined_pairs,
    score_targets,
)
from ps_nb.reproduction.growth import random_search

PARTS, SIZE = 4, 6
SLOW = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**31)


def crowded(seed, scenes=6, most=5, threshold=0.5):
    "Detections of a few scenes, some of them empty, with boxes that overlap at times and doubtful scores."
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, most + 1, scenes)
    counts[0] += 2
    offsets = np.cumsum([0, *counts])
    left = draw.integers(0, 60, (offsets[-1], 1))
    boxes = np.hstack([left, np.zeros_like(left), left + 10, np.full_like(left, 30)])
    features = flatten_parts(torch.from_numpy(draw.standard_normal((offsets[-1], PARTS, SIZE)).astype(np.float32))).numpy()
    scores = draw.uniform(0.3, 1, offsets[-1])
    found = Detections([f"s{i}" for i in range(scenes)], offsets, boxes, scores, features, features[:1])
    return found, Protocol("one", [Query(0, boxes[0], 0, [1], [[0, 0, 10, 30]])])


def scorer_of(seed, structure="pairs", context=3):
    torch.manual_seed(seed)
    attention = RelativeAttention(PARTS, SIZE, hidden=8)
    torch.nn.init.normal_(attention.weight.weight)
    scorer = ContextScorer(GraphSettings(structure=structure, context=context, width=12), attention, SIZE).eval()
    if structure == "pairs":  # untrained, the graph adds nothing
        torch.nn.init.normal_(scorer.graph.verdict.weight)
    else:
        torch.nn.init.constant_(scorer.graph.slope, 5.0)
    return scorer


def one_person(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    return np.prod(np.clip(high - low, 0, None)) > 0.6 * min(np.prod(one[2:] - one[:2]), np.prod(other[2:] - other[:2]))


@SLOW
@given(seed=SEEDS, context=st.integers(0, 4))
def test_a_query_is_scored_as_a_person_would_do_it_pair_by_pair(seed, context):
    found, protocol = crowded(seed)
    scorer = scorer_of(seed, context=context)
    parts = split_parts(torch.from_numpy(found.features), PARTS)
    asked, box = split_parts(torch.from_numpy(found.query_features), PARTS)[0], protocol.queries[0].box

    def similar(one, other):
        weights = scorer.attention(one, other)
        return sum(float(weights[r] * (one[r] @ other[r])) for r in range(PARTS))

    def company(scene, target):
        there = range(found.of(scene).start, found.of(scene).stop)
        return [row for row in there if found.scores[row] >= 0.5 and not one_person(found.boxes[row], target) and not any(
            found.scores[other] > found.scores[row] and one_person(found.boxes[row], found.boxes[other]) for other in there)]

    near = company(0, box)
    rows = np.arange(found.of(1).start, len(found))  # in the query's own scene everybody is a perfect pair: ties
    scored = dict(zip(rows, context_rescorer(scorer, found, protocol)(0, rows, np.zeros(len(rows)))))
    with torch.no_grad():
        for row in rows:
            far = [other for other in company(found.scene_index[row], found.boxes[row]) if other != row]
            walked = []
            for _, p, m in sorted(((similar(parts[p], parts[m]), p, m) for p in near for m in far), reverse=True):
                if len(walked) < context and p not in [q for q, _ in walked] and m not in [n for _, n in walked]:
                    walked.append((p, m))
            if len(walked) == context > 0:  # nothing is replicated, so nothing is drawn
                one, other = (torch.stack([first, *[parts[pair[side]] for pair in walked]])
                              for side, first in ((0, asked), (1, parts[row])))
                logits = scorer.graph(one[None], other[None])[0]
                alone = float(scorer.similarity_logit(torch.tensor(similar(asked, parts[row]))))
                assert abs(scored[row] - alone - float(logits[1] - logits[0])) < 1e-3
            elif not walked:
                assert abs(scored[row] - float(scorer.similarity_logit(torch.tensor(similar(asked, parts[row]))))) < 1e-4
            joined = joined_pairs(scorer, asked_by(scorer.attention, found, protocol, 0), found, int(row))
            assert len(joined.probe) == 1 + len(walked) and np.allclose(joined.weights.sum(axis=1), 1, atol=1e-5)


@SLOW
@given(seed=SEEDS)
def test_what_a_detection_scores_is_its_scenes_business(seed):
    found, protocol = crowded(seed)
    scorer = scorer_of(seed)
    rescore = context_rescorer(scorer, found, protocol)
    rows = np.random.default_rng(seed).permutation(len(found))
    everybody = rescore(0, rows, np.zeros(len(rows)))
    for part in np.array_split(np.arange(len(rows)), 3):
        assert np.allclose(rescore(0, rows[part], np.zeros(len(part))), everybody[part], atol=1e-4)
    assert len(rescore(0, rows[:0], np.zeros(0))) == 0


@SLOW
@given(seed=SEEDS, people=st.integers(1, 5), others=st.integers(0, 6), number=st.integers(0, 8))
def test_nobody_stands_in_two_context_pairs(seed, people, others, number):
    generator = torch.Generator().manual_seed(seed)
    similarity, allowed = torch.rand(2, 4, people, others, generator=generator)
    allowed = allowed > 0.4
    rows, columns, values, found = best_pairs(similarity, allowed, number)
    for t in range(4):
        kept = int(found[t])
        assert kept <= min(number, people, others)
        assert len(set(rows[t, :kept].tolist())) == len(set(columns[t, :kept].tolist())) == kept
        assert all(allowed[t, p, m] for p, m in zip(rows[t, :kept], columns[t, :kept]))
        assert (values[t, :kept].diff() <= 0).all()


@SLOW
@given(seed=SEEDS, context=st.integers(0, 5), structure=st.sampled_from(["pairs", "siamese"]))
def test_the_graph_knows_no_order_and_no_direction(seed, context, structure):
    scorer = scorer_of(seed, structure, context)
    probe, gallery = torch.nn.functional.normalize(torch.randn(2, 3, 1 + context, PARTS, SIZE), dim=-1)
    answer = scorer.graph(probe, gallery)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(context)])
    assert torch.allclose(scorer.graph(probe[:, order], gallery[:, order]), answer, atol=1e-3)
    assert torch.allclose(scorer.graph(gallery, probe), answer, atol=1e-3)


@SLOW
@given(seed=SEEDS, vertices=st.integers(1, 7))
def test_a_layer_is_a_dense_product(seed, vertices):
    torch.manual_seed(seed)
    adjacency = np.eye(vertices)
    adjacency[0] = adjacency[:, 0] = 1
    degree = np.diag(adjacency.sum(axis=1) ** -0.5)
    assert np.allclose(normalised(star(vertices)), degree @ adjacency @ degree, atol=1e-6)
    assert np.allclose(np.linalg.eigvalsh(degree @ adjacency @ degree).max(), 1)


@SLOW
@given(seed=SEEDS, rows=st.integers(3, 20))
def test_parts_cover_the_person_and_nothing_else(seed, rows):
    parts = ((0.0, 3 / 7), (2 / 7, 5 / 7), (4 / 7, 1.0))
    weights = row_weights(parts, rows)
    assert torch.allclose(weights.sum(dim=1), torch.ones(3), atol=1e-5) and (weights.sum(dim=0) > 0).all()
    flat = torch.full((2, 3, rows, 4), 2.5)
    assert torch.allclose(pool_parts(flat, parts), torch.full((2, 12), 2.5))


@SLOW
@given(seed=SEEDS, scale=st.floats(0.01, 100))
def test_features_that_are_not_unit_length_mean_the_same(seed, scale):
    found, protocol = crowded(seed)
    attention = scorer_of(seed).attention
    scale = np.float32(scale)
    stretched = replace(found, features=found.features * scale, query_features=found.query_features * scale)
    rows = np.arange(len(found))
    one, other = (attention_rescorer(attention, each, protocol)(0, rows, np.zeros(len(rows))) for each in (found, stretched))
    assert np.allclose(one, other, atol=1e-4)
    attention.weight.weight.data.zero_()
    uniform = attention_rescorer(attention, found, protocol)(0, rows, np.zeros(len(rows)))
    assert np.allclose(uniform, found.features @ found.query_features[0], atol=1e-5)


def test_a_part_of_zeros_is_like_nobody():
    features = flatten_parts(torch.cat([torch.zeros(2, 1, SIZE), torch.randn(2, PARTS - 1, SIZE)], dim=1))
    parts = split_parts(features, PARTS)
    assert not parts[:, 0].any() and torch.isfinite(relative_similarity(scorer_of(0).attention, parts, parts)).all()


def test_a_whole_evaluation_with_context():
    data, found = random_search(scenes=40, queries=6, gallery_size=15, people_per_scene=3, dimension=PARTS * SIZE, seed=0)
    scorer, protocol = scorer_of(0), data.protocol("random")
    for size in (None, 8):
        rule = EvaluationSettings(gallery_size=size)
        plain = evaluate(found, data, "random", rule)["search"]
        by_context = evaluate(found, data, "random", rule, context_rescorer(scorer, found, protocol))["search"]
        assert by_context["recall"] == plain["recall"] and 0 <= by_context["map"] <= 1


def test_scenes_without_people_and_more_pairs_than_people():
    empty = Detections(["a", "b"], [0, 0, 0], np.zeros((0, 4)), [], np.zeros((0, PARTS * SIZE)), np.ones((1, PARTS * SIZE)))
    scorer, crowd = scorer_of(0, context=9), make_crowd(empty, PARTS)
    nobody = Asked(torch.randn(PARTS, SIZE), torch.zeros(4), crowd.boxes, crowd.features)
    score, context = score_targets(scorer, nobody, crowd, torch.zeros(0, dtype=torch.long))
    assert score.shape == (0,) and context.found.shape == (0,)
    found, protocol = crowded(1)
    rows = np.arange(len(found))
    assert np.isfinite(context_rescorer(scorer, found, protocol)(0, rows, np.zeros(len(rows)))).all()


def test_what_cannot_be_is_one_line():
    found, protocol = crowded(0)
    with pytest.raises(UserError, match="not made of 7 parts"):
        make_crowd(found, 7)
    with pytest.raises(UserError, match="without query features"):
        context_rescorer(scorer_of(0), replace(found, query_features=None), protocol)(0, np.arange(1), np.zeros(1))
    narrow = replace(found, features=found.features[:, :8], query_features=found.query_features[:, :8])
    with pytest.raises(UserError, match="8 numbers are not those of this graph"):
        context_rescorer(scorer_of(0), narrow, protocol)
    with pytest.raises(UserError, match="8 numbers are not those of this graph"):
        attention_rescorer(scorer_of(0).attention, narrow, protocol)
    with pytest.raises(UserError, match="give a number from 0"):
        best_pairs(torch.rand(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), -1)
    with pytest.raises(UserError, match="no graph is called 'ring'"):
        scorer_of(0, "ring")
    with pytest.raises(UserError, match="not made of 5 parts"):
        only_part(found, 0, 5)
    crowd = make_crowd(found, PARTS)
    with pytest.raises(UserError, match="nothing to learn from"):
        train_scorer(GraphSettings(), scorer_of(0).attention, crowd, torch.arange(len(crowd)), 0)


def test_the_same_seed_learns_the_same_graph():
    torch.manual_seed(0)
    looks = torch.randn(12, PARTS, SIZE)
    features = torch.cat([looks, looks]) + 0.3 * torch.randn(24, PARTS, SIZE)
    boxes = np.tile([[0, 0, 10, 30], [20, 0, 30, 30], [40, 0, 50, 30]], (8, 1))
    found = Detections([f"s{i}" for i in range(8)], np.arange(9) * 3, boxes, np.ones(24), flatten_parts(features).numpy())
    crowd, ids = make_crowd(found, PARTS), torch.arange(12).repeat(2)
    assert companions(crowd, torch.arange(24))[1].sum(dim=1).tolist() == [2] * 24
    for structure, kind in (("pairs", PairGraph), ("siamese", SiameseGraph)):
        chosen = GraphSettings(structure=structure, width=12, epochs=2, halve_epoch=1, batch_size=4)
        attention = scorer_of(0).attention
        before = [value.clone() for value in attention.state_dict().values()]
        (one, log), (other, again) = (train_scorer(chosen, attention, crowd, ids, seed=3) for _ in range(2))
        assert isinstance(one.graph, kind) and log == again
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
        assert all(torch.equal(a, b) for a, b in zip(before, attention.state_dict().values())), "the searcher's attention stays"
        assert train_scorer(chosen, attention, crowd, ids, seed=4)[1] != log
