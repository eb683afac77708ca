"Metrics and protocols against slow versions written from their description, on random cases with every known quirk."

import os
import re
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from ps_nb.core import UserError, json_text
from ps_nb.data.scenes import Detections, Protocol, Query, Scene, SearchSet, load_detections
from ps_nb.evaluation.detection import evaluate_detection
from ps_nb.evaluation.metrics import average_precision, expand, first_best, match_threshold, precision_recall
from ps_nb.evaluation.ranking import (
    evaluate,
    evaluate_search,
    find_candidates,
    in_order,
    match_ranks,
    matched_query_features,
    score_search,
    search_space,
    with_gallery_size,
)
from ps_nb.evaluation.settings import PRESETS, EvaluationSettings
from ps_nb.reproduction.growth import random_search

CASES = settings(max_examples=150, deadline=None)


# The slow versions: loops over plain lists, nothing from the library.


def slow_overlap(a, b, pixel=0):
    a, b = [float(x) for x in a], [float(x) for x in b]
    width = min(a[2], b[2]) - max(a[0], b[0]) + pixel
    height = min(a[3], b[3]) - max(a[1], b[1]) + pixel
    shared = max(0.0, width) * max(0.0, height)
    area = (a[2] - a[0] + pixel) * (a[3] - a[1] + pixel) + (b[2] - b[0] + pixel) * (b[3] - b[1] + pixel)
    return shared / (area - shared)


def slow_average_precision(entries, truths, rule):
    "Entries are (score, hit). Walk down the distinct scores."
    area, recall, precision = 0.0, 0.0, 1.0
    for score in sorted({score for score, _ in entries}, reverse=True):
        kept = [hit for other, hit in entries if other >= score]
        new_recall, new_precision = sum(kept) / truths, sum(kept) / len(kept)
        height = new_precision if rule == "step" else (precision + new_precision) / 2
        area += (new_recall - recall) * height
        recall, precision = new_recall, new_precision
    return area


def slow_detection(detections, scenes, chosen):
    entries, found, people = [], 0, 0
    for number, scene in enumerate(scenes):
        persons = [box for box, identity in zip(scene.boxes, scene.ids) if identity >= 0 or not chosen.labelled_only]
        if chosen.labelled_only and not persons:
            continue
        rows = [row for row in range(*detections.of(number).indices(len(detections)))
                if detections.scores[row] >= np.float32(chosen.detection_score_threshold)]
        people += len(persons)
        table = [[slow_overlap(detections.boxes[row], person) for row in rows] for person in persons]
        for column, row in enumerate(rows):
            hit = False
            if persons:
                mine = [line[column] for line in table]
                person = mine.index(max(mine))
                hit = max(mine) >= 0.5 and table[person].index(max(table[person])) == column
            entries.append((detections.scores[row], hit))
            found += hit
    return slow_average_precision(entries, people, chosen.ap_rule), found / people


def slow_similarity(query, feature, score, kind):
    query, feature = [float(x) for x in query], [float(x) for x in feature]
    if kind == "euclidean":
        return -sum((a - b) ** 2 for a, b in zip(query, feature))
    product = sum(a * b for a, b in zip(query, feature))
    lengths = sum(a * a for a in query) ** 0.5 * sum(b * b for b in feature) ** 0.5
    cosine = product / lengths if lengths else 0.0
    return cosine * float(score) if kind == "weighted" else cosine


def slow_matlab_names(detections, scenes):
    names = []
    for number, scene in enumerate(scenes):
        rows = list(range(*detections.of(number).indices(len(detections))))
        best = []
        for row in rows:
            overlaps = [slow_overlap(detections.boxes[row], box, pixel=1) for box in scene.boxes]
            top = max(overlaps, default=0.0)
            best.append((top, int(scene.ids[overlaps.index(top)]) if top >= 0.5 else "junk" if top >= 0.3 else "nobody"))
        for position, (top, name) in enumerate(best):
            name = "junk" if name == -1 else name
            rivals = [other for other, rival in best if rival == name]
            earlier = [other for other, rival in best[:position] if rival == name]
            if isinstance(name, int) and (top < max(rivals) or top in earlier):
                name = "junk"
            names.append(name)
    return names


def slow_query(number, query, feature, detections, scenes, chosen):
    "AP (None without truth), ranks and number of truths of one query."
    gallery = [(int(scene), box) for scene, box in zip(query.positives, query.truth)]
    if query.distractors is None:
        listed = {scene for scene, _ in gallery} | {query.scene}
        gallery += [(scene, None) for scene in range(len(scenes)) if scene not in listed]
    else:
        gallery += [(int(scene), None) for scene in query.distractors]
    if chosen.gallery_size is not None:
        gallery = gallery[: chosen.gallery_size]
    if chosen.remainder:
        listed = {scene for scene, _ in gallery} | {query.scene}
        gallery += [(scene, None) for scene in range(len(scenes)) if scene not in listed]
    if chosen.exclude_query_scene:
        gallery = [item for item in gallery if item[0] != query.scene]
    if chosen.cameras == "other":
        gallery = [item for item in gallery if scenes[item[0]].camera != scenes[query.scene].camera]
    matlab = chosen.matching == "prw_matlab"
    names = slow_matlab_names(detections, scenes) if matlab else None
    if matlab and query.scene not in [scene for scene, _ in gallery]:
        gallery.append((query.scene, None))
    if matlab:
        truths = sum(scenes[scene].camera != scenes[query.scene].camera for scene in query.positives)
    else:
        truths = sum(box is not None for _, box in gallery)

    if chosen.query_feature == "matched":
        feature, most = None, -1.0
        for row in range(*detections.of(query.scene).indices(len(detections))):
            overlap = slow_overlap(detections.boxes[row], query.box, pixel=1)
            if overlap > most:
                feature, most = detections.features[row], overlap
        if feature is None:
            return (0.0 if truths else None), [], truths

    entries, seen = [], set()  # similarity, hit, detection
    for scene, truth in gallery:
        if chosen.duplicates == "once" and scene in seen:
            continue
        seen.add(scene)
        here = []
        for row in range(*detections.of(scene).indices(len(detections))):
            if detections.scores[row] < np.float32(chosen.score_threshold):
                continue
            overlaps = [slow_overlap(detections.boxes[row], box) for box in scenes[scene].boxes]
            top = max(overlaps, default=0.0)
            if chosen.drop_false_alarms and top < 0.5:
                continue
            if chosen.drop_unlabelled and top >= 0.5 and scenes[scene].ids[overlaps.index(top)] < 0:
                continue
            if matlab:
                same_camera = scenes[scene].camera == scenes[query.scene].camera
                if names[row] == "junk" or (names[row] == query.person and same_camera):
                    continue
            similarity = slow_similarity(feature, detections.features[row], detections.scores[row], chosen.similarity)
            here.append([similarity, matlab and names[row] == query.person, row])
        if truth is not None and not matlab:
            width, height = float(truth[2] - truth[0]), float(truth[3] - truth[1])
            least = min(0.5, width * height / ((width + 10) * (height + 10)))
            for item in sorted(here, key=lambda item: -item[0]):  # Python's sort is stable
                if slow_overlap(detections.boxes[item[2]], truth) >= least:
                    item[1] = True
                    break
        entries += here
    matched = {row for _, hit, row in entries if hit}
    ranked = sorted(entries, key=lambda item: (-item[0], item[2] in matched, item[2], not item[1]))
    ranks = [rank for rank, (_, hit, _) in enumerate(ranked, 1) if hit]
    if not truths:
        return None, ranks, 0
    return slow_average_precision([(similarity, hit) for similarity, hit, _ in entries], truths, chosen.ap_rule), ranks, truths


# Random cases. Features come from a palette of a few vectors, so that many are equal; boxes crowd in a small picture.


def random_case(seed):
    generator = np.random.default_rng(seed)
    scenes = []
    for number in range(int(generator.integers(3, 9))):
        people = int(generator.integers(0, 4))
        corner = generator.integers(0, 40, (people, 2))
        sides = generator.integers(3, 40, (people, 2))
        ids = generator.integers(-1, 3, people)
        scenes.append(Scene(f"s{number}", Path(f"s{number}"), 100, 100, np.hstack([corner, corner + sides]), ids,
                            camera=int(generator.integers(1, 4))))
    boxes, scores, counts = [], [], []
    for scene in scenes:
        near = [box + generator.integers(-4, 5, 4) for box in scene.boxes.repeat(2, 0) if generator.random() < 0.7]
        far = [np.array([60, 60, 70, 70]) + generator.integers(-5, 5, 4) for _ in range(generator.integers(0, 2))]
        mine = [box for box in near + far if box[2] > box[0] and box[3] > box[1]]
        boxes += mine
        counts.append(len(mine))
        scores += list(generator.integers(0, 11, len(mine)) / 10)
    palette = np.vstack([generator.standard_normal((5, 3)), np.zeros(3)]).astype(np.float32)
    features = palette[generator.integers(0, 6, len(boxes))]
    detections = Detections(tuple(scene.name for scene in scenes), np.cumsum([0, *counts]), np.array(boxes).reshape(-1, 4),
                            np.array(scores), features)
    queries = []
    for number, scene in enumerate(scenes):
        for box, person in zip(scene.boxes, scene.ids):
            shown = [(other, mine) for other, place in enumerate(scenes) for mine, identity in zip(place.boxes, place.ids)
                     if identity == person and person >= 0 and (other != number or generator.random() < 0.2)]
            shown += [item for item in shown if generator.random() < 0.2]  # scenes listed twice
            positives = [other for other, _ in shown]
            others = [other for other in range(len(scenes)) if other not in positives or generator.random() < 0.1]
            distractors = None if generator.random() < 0.5 else generator.permutation(others)[: generator.integers(0, 6)]
            queries.append(Query(number, box, int(person), positives, np.array([mine for _, mine in shown]).reshape(-1, 4),
                                 distractors))
    return scenes, detections, Protocol("random", queries), palette[generator.integers(0, 6, len(queries))]


def listed_twice(protocol):
    return any(query.distractors is not None and set(query.positives) & set(query.distractors) for query in protocol.queries)


chosen_settings = st.builds(
    EvaluationSettings,
    score_threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    detection_score_threshold=st.sampled_from([0.0, 0.5]),
    labelled_only=st.booleans(),
    matching=st.sampled_from(["similar", "similar", "prw_matlab"]),
    similarity=st.sampled_from(["cosine", "weighted", "euclidean"]),
    query_feature=st.sampled_from(["given", "matched"]),
    duplicates=st.sampled_from(["twice", "once"]),
    exclude_query_scene=st.booleans(),
    cameras=st.sampled_from(["any", "other"]),
    remainder=st.booleans(),
    drop_unlabelled=st.booleans(),
    drop_false_alarms=st.booleans(),
    ap_rule=st.sampled_from(["step", "trapezoid"]),
)


@CASES
@given(seed=st.integers(0, 2**32), chosen=chosen_settings)
def test_search_agrees_with_the_slow_version(seed, chosen):
    scenes, detections, protocol, features = random_case(seed)
    if chosen.matching == "prw_matlab" and listed_twice(protocol):
        with pytest.raises(UserError, match="as a positive and as a distractor"):
            score_search(detections, features, scenes, protocol, chosen)
        protocol = Protocol("repaired", [replace(query, distractors=None) for query in protocol.queries])
    slow = [slow_query(number, query, features[number], detections, scenes, chosen)
            for number, query in enumerate(protocol.queries)]
    if not any(truths for _, _, truths in slow):
        with pytest.raises(UserError, match="anything to find"):
            score_search(detections, features, scenes, protocol, chosen)
        return
    fast = score_search(detections, features, scenes, protocol, chosen)
    for number, (precision, ranks, truths) in enumerate(slow):
        assert fast.truths[number] == truths
        assert fast.ranks[number].tolist() == ranks
        assert np.isnan(fast.average_precision[number]) if precision is None else (
            abs(fast.average_precision[number] - precision) < 1e-9)
    asked = [(precision, ranks) for precision, ranks, truths in slow if truths]
    summary = fast.summary()
    assert abs(summary["map"] - np.mean([precision for precision, _ in asked])) < 1e-9
    for k in (1, 5, 10):
        assert abs(summary[f"top{k}"] - np.mean([any(rank <= k for rank in ranks) for _, ranks in asked])) < 1e-9
    assert summary["queries"] == len(asked) and summary["left_out"] == len(slow) - len(asked)


@CASES
@given(seed=st.integers(0, 2**32), chosen=chosen_settings)
def test_detection_agrees_with_the_slow_version(seed, chosen):
    scenes, detections, _, _ = random_case(seed)
    if not any((scene.ids >= 0).any() if chosen.labelled_only else len(scene) for scene in scenes):
        with pytest.raises(UserError, match="shows a person"):
            evaluate_detection(detections, scenes, chosen)
        return
    precision, recall = slow_detection(detections, scenes, chosen)
    outcome = evaluate_detection(detections, scenes, chosen)
    assert abs(outcome["ap"] - precision) < 1e-9 and abs(outcome["recall"] - recall) < 1e-9


@CASES
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(PRESETS)))
def test_every_preset_runs_and_stays_in_range(seed, name):
    scenes, detections, protocol, features = random_case(seed)
    try:
        summary = evaluate_search(detections, features, scenes, protocol, PRESETS[name])
    except UserError as error:
        refused = name == "prw_matlab" and listed_twice(protocol)
        assert ("as a positive and as a distractor" if refused else "anything to find") in str(error)
    else:
        assert not (name == "prw_matlab" and listed_twice(protocol))
        assert all(0 <= summary[key] <= 1 for key in ("map", "top1", "top5", "top10", "recall"))
        assert summary["top1"] <= summary["top5"] <= summary["top10"]
        assert summary["map"] <= summary["recall"] or name == "seqnet" or summary["queries"] > 1


@CASES
@given(hits=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40), missed=st.integers(0, 5))
def test_average_precision_is_that_of_scikit_learn_times_recall(hits, missed):
    scores, hits = np.array([score for score, _ in hits]) / 10, np.array([hit for _, hit in hits])
    if not hits.any():
        assert average_precision(scores, hits, missed + 1) == 0
        return
    truths = hits.sum() + missed
    recall = hits.sum() / truths
    assert abs(average_precision(scores, hits, truths) - average_precision_score(hits, scores) * recall) < 1e-9
    precision, rate, _ = precision_recall_curve(hits, scores)
    assert abs(average_precision(scores, hits, truths, "trapezoid") - auc(rate, precision) * recall) < 1e-9
    ours, our_recall, threshold = precision_recall(scores, hits, truths)
    assert abs((np.diff(our_recall, prepend=0) * ours).sum() - average_precision(scores, hits, truths)) < 1e-9
    assert (np.diff(threshold) < 0).all() and abs(our_recall[-1] - recall) < 1e-12


@CASES
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=8), data=st.data())
def test_expand_and_first_best(counts, data):
    offsets = np.cumsum([0, *counts])
    groups = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=10))
    rows, owner = expand(offsets, np.array(groups, np.int64))
    assert rows.tolist() == [row for group in groups for row in range(offsets[group], offsets[group + 1])]
    assert owner.tolist() == [place for place, group in enumerate(groups) for _ in range(counts[group])]
    value = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(owner), max_size=len(owner))), float)
    best = first_best(owner, value)
    assert best.tolist() == [min(np.flatnonzero(owner == group), key=lambda place: (-value[place], place))
                             for group in np.unique(owner)]


def test_match_threshold_falls_below_one_half_for_small_boxes_only():
    assert match_threshold([[0, 0, 24, 24]])[0] < 0.5 and match_threshold([[0, 0, 25, 25]])[0] == 0.5


# Properties of the search.


@pytest.fixture
def case():
    for seed in range(100):
        scenes, detections, protocol, features = random_case(seed)
        if len(detections) > 8 and sum(len(query.positives) > 0 for query in protocol.queries) > 3:
            return scenes, detections, protocol, features
    raise AssertionError("no random case is large enough")


def test_order_of_the_detections_within_scenes_does_not_matter(case):
    scenes, detections, protocol, _ = case
    generator = np.random.default_rng(3)
    features = generator.standard_normal((len(detections), 6)).astype(np.float32)
    queries = generator.standard_normal((len(protocol), 6)).astype(np.float32)
    order = np.concatenate([generator.permutation(np.arange(*detections.of(scene).indices(len(detections))))
                            for scene in range(len(scenes))])
    first = replace(detections, features=features)
    second = replace(detections, boxes=detections.boxes[order], scores=detections.scores[order], features=features[order])
    assert evaluate_search(first, queries, scenes, protocol) == evaluate_search(second, queries, scenes, protocol)


def test_large_and_small_galleries_take_two_ways_to_the_same_scores():
    generator = np.random.default_rng(0)
    count = 60
    scenes = [Scene(f"s{i}", Path(f"s{i}"), 90, 90, [[5, 5, 40, 80]], [i % 5]) for i in range(count)]
    found = Detections(tuple(scene.name for scene in scenes), np.arange(count + 1), np.tile([5, 5, 40, 80], (count, 1)),
                       np.ones(count), generator.standard_normal((count, 300)))
    features = generator.standard_normal((20, 300)).astype(np.float32)
    box = scenes[0].boxes[0]
    few = [Query(0, box, 0, [5 * (1 + i % 9)], [box], [1 + i % 4]) for i in range(20)]
    many = [replace(query, distractors=np.arange(1, 50)) for query in few]
    for queries in (few, many):
        protocol = Protocol("p", queries)
        scores = score_search(found, features, scenes, protocol)
        space = search_space(found, features, scenes, protocol)
        alone = [match_ranks(find_candidates(space, number, query)) for number, query in enumerate(queries)]
        assert [ranks.tolist() for ranks in scores.ranks] == [ranks.tolist() for ranks in alone]


def test_collapsed_features_find_nobody_first(case):
    scenes, detections, protocol, features = case
    same = replace(detections, features=np.full((len(detections), 7), 0.3, np.float32), scores=np.ones(len(detections)))
    scores = score_search(same, np.ones((len(protocol), 7)), scenes, protocol)
    space = search_space(same, np.ones((len(protocol), 7)), scenes, protocol)
    for number, query in enumerate(protocol.queries):
        found = find_candidates(space, number, query)
        wrong = np.setdiff1d(found.detection, found.detection[found.match])
        assert (scores.ranks[number] > len(wrong)).all()


def test_copies_of_a_matching_detection_do_not_outrank_it():
    scenes = [Scene(f"s{i}", Path(f"s{i}"), 90, 200, [[5, 5, 40, 80], [50, 5, 85, 80]], [0, 1]) for i in range(2)]
    found = Detections(("s0", "s1"), [0, 0, 2], scenes[1].boxes, [1, 1], [[1, 0], [0.9, 0.1]])
    twice = Protocol("p", [Query(0, [5, 5, 40, 80], 0, [1, 1], scenes[1].boxes, [])])
    assert score_search(found, np.array([[1, 0]]), scenes, twice).ranks[0].tolist() == [1, 3]


def test_rescoring_sees_rows_of_the_detections_and_decides_the_ranking(case):
    scenes, detections, protocol, features = case

    def by_overlap(number, rows, similarity):
        assert (detections.scores[rows] >= 0.5).all() and similarity.shape == rows.shape
        return -rows.astype(float)

    scores = score_search(detections, features, scenes, protocol, rescore=by_overlap)
    space = search_space(detections, features, scenes, protocol)
    for number, query in enumerate(protocol.queries):
        ranked = in_order(find_candidates(space, number, query, rescore=by_overlap))
        assert (np.diff(ranked.detection) >= 0).all()
        assert scores.ranks[number].tolist() == (1 + np.flatnonzero(ranked.match)).tolist()
    with pytest.raises(UserError, match="finite numbers"):
        score_search(detections, features, scenes, protocol, rescore=lambda number, rows, similarity: similarity[:-1])


def test_matched_query_feature_counts_the_last_pixel():
    inside, shifted = [0, 0, 3, 10], [5.3, 0, 15.3, 10]  # overlap 0.300 and 0.307; with the last pixel 0.364 and 0.350
    found = Detections(("s0", "s1"), [0, 2, 3], [shifted, inside, [0, 0, 10, 10]], [1, 1, 1], [[1, 0], [0, 1], [1, 1]])
    protocol = Protocol("p", [Query(0, [0, 0, 10, 10], 0, [1], [[0, 0, 10, 10]])])
    features, answered = matched_query_features(found, protocol)
    assert answered.all() and features.tolist() == [[0, 1]]


def test_nobody_detected_scores_nothing(case):
    scenes, detections, protocol, features = case
    nothing = Detections(detections.names, np.zeros(len(scenes) + 1), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 3)))
    summary = evaluate_search(nothing, features, scenes, protocol)
    assert summary["map"] == summary["top10"] == summary["recall"] == 0 and summary["queries"] > 0
    matched = evaluate_search(nothing, None, scenes, protocol, EvaluationSettings(query_feature="matched"))
    assert matched == summary
    outcome = evaluate_detection(nothing, scenes)
    assert outcome["ap"] == outcome["recall"] == 0


def test_true_boxes_and_perfect_features_score_one(case):
    scenes, _, protocol, _ = case
    boxes = np.concatenate([scene.boxes for scene in scenes])
    ids = np.concatenate([scene.ids for scene in scenes])
    found = Detections(tuple(scene.name for scene in scenes), np.cumsum([0, *map(len, scenes)]), boxes, np.ones(len(boxes)),
                       np.eye(4)[ids])
    labelled = [query for query in protocol.queries if query.person >= 0]
    once = [Query(query.scene, query.box, query.person, positives, [scenes[i].boxes[scenes[i].ids == query.person][0]
                                                                    for i in positives])
            for query in labelled
            if (positives := [i for i in np.unique(query.positives) if (scenes[i].ids == query.person).sum() == 1])]
    allowed = [query for query in once if not any((scenes[i].ids == query.person).any() for i in range(len(scenes))
                                                  if i not in query.positives and i != query.scene)]
    assert allowed
    protocol = Protocol("perfect", allowed)
    summary = evaluate_search(found, np.eye(4)[[query.person for query in allowed]], scenes, protocol)
    assert summary["map"] == summary["top1"] == summary["recall"] == 1


# Gallery sizes.


def test_smaller_galleries_are_parts_of_larger_ones(case):
    scenes, _, protocol, _ = case
    smallest = max(len(query.positives) for query in protocol.queries)
    everywhere = Protocol("all", [replace(query, distractors=None) for query in protocol.queries
                                  if len(np.unique(query.positives)) == len(query.positives)])
    most = min(len(query.gallery(len(scenes))) for query in everywhere.queries)
    for query, small in zip(everywhere.queries, with_gallery_size(everywhere, min(smallest, most), len(scenes)).queries):
        large = query.gallery(len(scenes)).tolist()
        assert set(small.gallery(len(scenes))) <= set(large)
        assert small.gallery(len(scenes))[: len(query.positives)].tolist() == query.positives.tolist()
    with pytest.raises(UserError, match="gallery size 99 does not suit query"):
        with_gallery_size(everywhere, 99, len(scenes))


def test_listed_distractors_are_cut_in_their_order():
    protocol = Protocol("p", [Query(0, [0, 0, 9, 9], 0, [3], [[0, 0, 9, 9]], [7, 2, 5])])
    assert with_gallery_size(protocol, 3, 9).queries[0].gallery(9).tolist() == [3, 7, 2]
    with pytest.raises(UserError, match="give 1 to 4"):
        with_gallery_size(protocol, 0, 9)


def test_gallery_size_is_a_switch(case):
    scenes, detections, protocol, features = case
    listed = Protocol("p", [replace(query, distractors=query.gallery(len(scenes))[len(query.positives):])
                            for query in protocol.queries])
    size = min(len(query.gallery(len(scenes))) for query in listed.queries)
    if size < max(len(query.positives) for query in listed.queries):
        listed = Protocol("p", [query for query in listed.queries if len(query.positives) <= size])
    features = features[: len(listed)]
    cut = with_gallery_size(listed, size, len(scenes))
    assert evaluate_search(detections, features, scenes, listed, EvaluationSettings(gallery_size=size)) == evaluate_search(
        detections, features, scenes, cut)


def test_random_search_has_the_sizes_asked_for():
    search_set, found = random_search(30, 7, 12, 2.5, 16, seed=3)
    protocol = search_set.protocol("random")
    assert len(protocol) == len(found.query_features) == 7 and found.features.shape[1] == 16
    assert all(len(np.unique(query.gallery(30))) == 12 and query.scene not in query.gallery(30) for query in protocol.queries)
    assert search_set.fingerprint() == random_search(30, 7, 12, 2.5, 16, seed=3)[0].fingerprint()
    with pytest.raises(UserError, match="gallery size 30"):
        random_search(30, 7, 30, 2.5, 16, seed=3)


# Input a user can get wrong.


def test_bad_settings_name_the_value():
    for wrong in (dict(matching="best"), dict(similarity="l2"), dict(query_feature="box"), dict(duplicates="never"),
                  dict(cameras="same"), dict(ap_rule="voc"), dict(gallery_size=0), dict(score_threshold=float("nan"))):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            EvaluationSettings(**wrong)


def test_query_features_that_do_not_fit(case):
    scenes, detections, protocol, features = case
    broken = features.copy()
    broken[2, 1] = np.nan
    for given_features, words in ((None, "without query features"), (features[:-1], "one row a query"),
                                  (features[:, :2], "have 2 numbers"), (broken, "query 2 contain NaN"),
                                  (features[0], "one row a query")):
        with pytest.raises(UserError, match=words):
            evaluate_search(detections, given_features, scenes, protocol)


def test_scenes_in_another_order_are_refused(case):
    scenes, detections, protocol, features = case
    for call in (lambda: evaluate_search(detections, features, scenes[::-1], protocol),
                 lambda: evaluate_detection(detections, scenes[:-1])):
        with pytest.raises(UserError, match="do not follow"):
            call()


GOOD = dict(image=np.array(["s0", "s0", "s1"]), boxes=np.float32([[1, 1, 20, 40], [30, 2, 50, 44], [5, 5, 25, 45]]),
            scores=np.float32([0.9, 0.8, 0.7]), features=np.float32([[1, 0], [0, 1], [1, 0.1]]),
            query_features=np.float32([[1, 0.05]]))
WORLD = [Scene("s0", Path("s0"), 100, 100, GOOD["boxes"][:2], [0, -1]), Scene("s1", Path("s1"), 100, 100, GOOD["boxes"][2:], [0])]
ASKED = SearchSet("world", [], WORLD, {"all": Protocol("all", [Query(0, GOOD["boxes"][0], 0, [1], GOOD["boxes"][2:])])})


def outcome(folder, **changes):
    "The result of `evaluate` on the arrays of GOOD with some changed, by way of the file, or the one line that refuses them."
    np.savez(folder / "found.npz", **{key: value for key, value in (GOOD | changes).items() if value is not None})
    try:
        found = load_detections(folder / "found.npz", ["s0", "s1"])
        return evaluate(found, ASKED, "all")
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)


@pytest.mark.parametrize("changes, message", [
    (dict(scores=np.array(["0.9", "0.8", "0.7"])), "scores of the detections are of type <U3, not numbers"),
    (dict(scores=np.float32(0.9)), r"scores of the detections are of shape \(\): give \(N,\)"),
    (dict(scores=GOOD["boxes"][:, :2]), r"scores of the detections are of shape \(3, 2\)"),
    (dict(features=np.array([["a", "b"]] * 3)), "features of the detections are of type"),
    (dict(features=GOOD["scores"]), r"features of the detections are of shape \(3,\)"),
    (dict(features=GOOD["features"] + 1j), "features of the detections are of type complex"),
    (dict(features=GOOD["features"] * np.nan), "features of the detections contain NaN"),
    (dict(scores=np.array([1e300, 0.5, 0.4])), "scores of the detections contain NaN or infinity"),
    (dict(boxes=GOOD["boxes"][:, [2, 1, 0, 3]]), "in s0 ends before it starts: boxes are x1 y1 x2 y2"),
    (dict(boxes=GOOD["boxes"][:, [0, 3, 2, 1]]), "ends before it starts"),
    (dict(boxes=GOOD["boxes"].T), r"boxes of the detections are of shape \(4, 3\)"),
    (dict(boxes=GOOD["boxes"].astype("datetime64[s]")), "boxes of the detections are of type datetime64"),
    (dict(image=np.array([0, 0, 1])), "image of the detections is of type int64"),
    (dict(image=np.array("s0")), "image of the detections"),
    (dict(image=np.array(["s0", None, "s1"], object)), "not a readable .npz of plain arrays"),
    (dict(query_features=GOOD["features"][0]), "query_features of the detections are of shape"),
    (dict(query_features=np.array([["1", "0"]])), "query_features of the detections are of type"),
    (dict(query_features=GOOD["features"]), "do not suit the 1 queries"),
    (dict(query_features=np.ones((1, 5))), "query features have 5 numbers"),
    (dict(scores=None), "lacks the array 'scores'"),
])
def test_detections_of_other_programs_are_refused_in_one_line(tmp_path, changes, message):
    said = outcome(tmp_path, **changes)
    assert isinstance(said, str) and re.search(message, said) and ("found.npz" in said or "queries" in said or "query" in said)


@pytest.mark.parametrize("changes", [
    dict(scores=GOOD["scores"][:, None], image=GOOD["image"][:, None]),
    dict(image=GOOD["image"].astype("S")),
    dict(boxes=GOOD["boxes"].astype(np.uint8), scores=GOOD["scores"].astype(np.float64), features=GOOD["features"].astype(">f8")),
    dict(notes=np.array([{"any": "thing"}], object)),
])
def test_detections_that_can_be_read_one_way_only_are_read(tmp_path, changes):
    assert outcome(tmp_path, **changes) == outcome(tmp_path)


@pytest.mark.parametrize("kind", [float, np.float32, "U1"])
def test_empty_lists_say_that_nobody_was_found(tmp_path, kind):
    nothing = np.array([], kind)
    found = outcome(tmp_path, image=nothing, boxes=nothing, scores=nothing, features=nothing)
    assert found["search"]["map"] == 0 and found["detection"]["recall"] == 0


ANY_ARRAY = st.sampled_from([bool, np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float32, np.float64, ">f4", complex,
                             "U3", "S2", "datetime64[s]", "timedelta64[s]", object, "f4,i2"]).flatmap(
    lambda kind: st.tuples(st.just(np.dtype(kind)), st.one_of(
        st.sampled_from([(3,), (3, 1), (3, 4), (3, 2), (1, 2), (0,), (0, 4), (3, 0), (), (2,), (1, 3, 4)]),
        st.lists(st.integers(0, 4), max_size=4).map(tuple)), st.integers(0, 2**32)))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(sorted(GOOD)), ANY_ARRAY, min_size=1, max_size=2))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_array_in_a_file_of_detections_is_one_line_or_works(changes):
    made = {}
    for key, (kind, shape, seed) in changes.items():
        content = np.random.default_rng(seed).bytes(kind.itemsize * int(np.prod(shape, dtype=int)))
        made[key] = np.full(shape, None) if kind.kind == "O" else np.zeros(shape, kind)
        if kind.kind in "biufcmM" and seed % 3 and made[key].size:
            made[key] = np.frombuffer(content, kind).reshape(shape) if kind.kind != "b" else np.ones(shape, bool)
        elif kind.kind == "U" and made[key].size and seed % 2:
            made[key][...] = "s1"
    with tempfile.TemporaryDirectory() as folder:
        found = outcome(Path(folder), **made)
    assert isinstance(found, str) or 0 <= found["search"]["map"] <= 1


def test_other_cameras_need_cameras(case):
    scenes, detections, protocol, features = case
    unknown = [replace(scene, camera=None) for scene in scenes]
    for chosen in (PRESETS["cucps_multiview"], PRESETS["prw_matlab"]):
        with pytest.raises(UserError, match="has no camera"):
            evaluate_search(detections, features, unknown, protocol, chosen)


def test_evaluate_gives_the_keys_of_the_command(case):
    scenes, detections, protocol, features = case
    search_set = SearchSet("case", [], scenes, {"random": protocol})
    result = evaluate(replace(detections, query_features=features), search_set, "random", PRESETS["nae"])
    assert {"ap", "recall"} <= set(result["detection"])
    assert {"map", "top1", "top5", "top10", "queries"} <= set(result["search"])
    assert EvaluationSettings(**result["settings"]) == PRESETS["nae"] and asdict(PRESETS["nae"]) == result["settings"]
    assert json_text(result)
    with pytest.raises(UserError, match="no protocol 'other'"):
        evaluate(detections, search_set, "other")


def test_presets_differ():
    assert len(set(PRESETS.values())) == len(PRESETS)


# The official protocol file.

needs_protocol = pytest.mark.skipif(
    not (Path(os.environ.get("PS_NB_TEST_DATA", "/nowhere")) / "cuhk-sysu" / "TestG100.mat").is_file(),
    reason="PS_NB_TEST_DATA with cuhk-sysu/TestG100.mat is not here",
)


@pytest.fixture(scope="module")
def official():
    "The official queries and galleries, with their true boxes as detections and one random direction per person as feature."
    from ps_nb.data.cuhk_sysu import read_cuhk_protocol

    search_set = read_cuhk_protocol(Path(os.environ["PS_NB_TEST_DATA"]) / "cuhk-sysu" / "TestG100.mat")
    scenes, protocol = search_set.gallery, search_set.protocol("TestG100")
    persons = np.concatenate([scene.ids for scene in scenes])
    directions = np.random.default_rng(0).standard_normal((persons.max() + 2, 64))
    found = Detections(tuple(scene.name for scene in scenes), np.cumsum([0, *map(len, scenes)]),
                       np.concatenate([scene.boxes for scene in scenes]), np.ones(len(persons)), directions[persons])
    return scenes, protocol, found, directions[[query.person for query in protocol.queries]]


FAULTY = {1250: 1 / 2, 1633: 2 / 3, 1997: 7 / 8, 2561: 2 / 3}  # queries with a scene listed twice: recall where it counts once


@needs_protocol
def test_official_protocol_with_perfect_features(official):
    scenes, protocol, found, features = official
    scores = score_search(found, features, scenes, protocol)
    assert scores.truths.sum() == 5447 and len(protocol) == 2900
    # A scene listed twice with two boxes: each is a wrong answer to the other's truth. Query 493 meets its own box, which
    # the file does not call true, and a tie is decided against the match.
    assert set(np.flatnonzero(scores.average_precision < 1 - 1e-9)) == {493, 1633, 1997, 2561}
    assert [number for number, ranks in enumerate(scores.ranks) if ranks[0] > 1] == [493]
    assert scores.summary()["recall"] == 1
    assert evaluate_detection(found, scenes)["ap"] == 1


@needs_protocol
def test_official_protocol_counting_detections_once(official):
    scenes, protocol, found, features = official
    once = score_search(found, features, scenes, protocol, PRESETS["seqnet"])
    recall = np.array([len(ranks) for ranks in once.ranks]) / once.truths
    assert {int(number): recall[number] for number in np.flatnonzero(recall < 1)} == pytest.approx(FAULTY)


@needs_protocol
def test_official_protocol_lists_two_queries_in_their_own_gallery(official):
    scenes, protocol, found, features = official
    kept, left = (score_search(found, features, scenes, protocol, EvaluationSettings(exclude_query_scene=exclude))
                  for exclude in (False, True))
    assert np.flatnonzero(kept.truths != left.truths).tolist() == [493, 2132]


@needs_protocol
def test_official_protocol_full_set_searches_every_other_scene(official):
    scenes, protocol, found, features = official
    few = Protocol("few", protocol.queries[:5])
    space = search_space(found, features[:5], scenes, few)
    for number, query in enumerate(few.queries):
        candidates = find_candidates(space, number, query, EvaluationSettings(remainder=True))
        assert len(candidates.detection) == len(found) - len(scenes[query.scene])
        assert len(np.unique(candidates.detection)) == len(candidates.detection)


@needs_protocol
@pytest.mark.parametrize("name", ["standard", "e2e", "seqnet", "alignps", "cucps_regular"])
def test_official_protocol_agrees_with_the_slow_version(official, name):
    scenes, protocol, found, features = official
    generator = np.random.default_rng(1)
    moved = replace(found, boxes=found.boxes + generator.normal(0, 6, found.boxes.shape),
                    scores=generator.uniform(0.1, 1, len(found)),
                    features=(found.features + generator.normal(0, 2, found.features.shape))[:, :8])
    numbers = [*range(0, 2900, 300), *FAULTY, 493, 2132]
    some = Protocol("some", [protocol.queries[number] for number in numbers])
    scores = score_search(moved, features[numbers, :8], scenes, some, PRESETS[name])
    for number, query in enumerate(some.queries):
        feature = features[numbers[number], :8].astype(np.float32)
        precision, ranks, truths = slow_query(number, query, feature, moved, scenes, PRESETS[name])
        assert scores.ranks[number].tolist() == ranks and scores.truths[number] == truths
        assert abs(scores.average_precision[number] - precision) < 1e-9
