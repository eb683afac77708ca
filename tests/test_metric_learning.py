"Edge cases of learned metrics: few people, singular covariances, one identity, unlabelled people."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_nb.baselines.metric_learning import (
    Projection,
    kissme,
    pair_covariances,
    principal_components,
    project,
    project_detections,
    xqda,
)
from ps_nb.core import UserError, numpy_generator
from ps_nb.data.scenes import Detections

METRICS = {"kissme": kissme, "xqda": xqda}


@pytest.fixture(params=METRICS)
def learn(request):
    return METRICS[request.param]


def people(persons=5, each=3, dimension=4, seed=0):
    generator = numpy_generator(seed, "people")
    ids = np.repeat(np.arange(persons), each)
    return generator.normal(size=(persons, dimension))[ids] + 0.2 * generator.normal(size=(len(ids), dimension)), ids


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(1, 30), st.integers(1, 300), st.integers(0, 99))
def test_components_are_orthonormal_and_at_most_n_minus_1(number, width, dimension, seed):
    features = numpy_generator(seed, "features").normal(size=(number, width))
    matrix = principal_components(features, dimension).matrix
    assert matrix.shape == (width, min(dimension, number - 1, width))
    assert np.allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-4)


@pytest.mark.parametrize("shape", [(10, 3), (3, 10)])
def test_components_of_equal_features_are_one_and_finite(shape):
    projection = principal_components(np.full(shape, 0.3))
    assert projection.matrix.shape == (shape[1], 1)
    assert np.allclose(project(np.full(shape, 0.3), projection), 0, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_components_need_two_people(number):
    with pytest.raises(UserError, match=f"found {number}"):
        principal_components(np.ones((number, 4)))


def test_other_dimensions_are_refused():
    with pytest.raises(UserError, match="5 dimensions"):
        project(np.ones((2, 5)), Projection(np.zeros(4, np.float32), np.eye(4, dtype=np.float32)))


def test_detections_are_projected_with_their_queries():
    halve = Projection(np.zeros(2, np.float32), 0.5 * np.eye(2, dtype=np.float32))
    found = Detections(("a",), [0, 1], [[0, 0, 1, 1]], [0.5], [[2, 4]], np.array([[6, 8]], np.float32))
    assert project_detections(found, halve).query_features.tolist() == [[3, 4]]
    nobody = Detections(("a",), [0, 0], np.zeros((0, 4)), [], np.zeros((0, 2)))
    assert project_detections(nobody, halve).features.shape == (0, 2)


def test_one_identity_is_refused(learn):
    with pytest.raises(UserError, match="1 identities"):
        learn(people(persons=1)[0], np.zeros(3, int))


def test_nobody_seen_twice_is_refused(learn):
    with pytest.raises(UserError, match="0 and 10 pairs"):
        learn(people(each=1)[0], np.arange(5))


def test_nobody_labelled_is_refused(learn):
    with pytest.raises(UserError, match="more"):
        learn(people()[0], np.full(15, -1))


def test_lengths_must_agree(learn):
    with pytest.raises(UserError, match="15 features but 14 identities"):
        learn(people()[0], people()[1][:-1])


def test_equal_features_are_refused_or_harmless():
    with pytest.raises(UserError, match="equal"):
        kissme(np.ones((6, 3)), np.repeat([0, 1, 2], 2))
    assert np.isfinite(xqda(np.ones((6, 3)), np.repeat([0, 1, 2], 2)).matrix).all()


def test_unlabelled_people_change_nothing(learn):
    features, ids = people()
    more = np.concatenate([features, 100 + features[:4]])
    with_them, without = learn(more, np.append(ids, [-1] * 4)), learn(features, ids)
    assert np.allclose(with_them.matrix @ with_them.matrix.T, without.matrix @ without.matrix.T, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(2, 4), st.integers(1, 60), st.integers(0, 99))
def test_singular_covariances_give_a_finite_metric(persons, each, dimension, seed):
    features, ids = people(persons, each, dimension, seed)
    for learn in METRICS.values():
        projected = project(features, learn(features, ids))
        assert np.isfinite(projected).all() and len(projected) == len(features)


def test_two_pictures_of_two_people_are_enough(learn):
    features, ids = np.array([[0.0, 0], [0, 1], [5, 0], [5, 1]]), np.array([0, 0, 1, 1])
    same, different = pair_covariances(features, ids)
    assert np.allclose(same, [[0, 0], [0, 1]]) and np.allclose(different, [[25, 0], [0, 0.5]])
    projected = project(features, learn(features, ids))
    distances = ((projected[:, None] - projected) ** 2).sum(axis=2)
    assert distances[0, 1] < 0.01 * distances[0, 2]


def test_the_metric_does_not_depend_on_where_the_origin_is(learn):
    features, ids = people()
    here, there = learn(features, ids), learn(features + 7, ids)
    assert np.allclose(here.matrix @ here.matrix.T, there.matrix @ there.matrix.T, rtol=1e-2, atol=1e-2)


def design(apart, spread):
    """Four people at the corners of a rectangle, each in four pictures at the corners of another: covariances known by hand.

    Along an axis where people stand at ±a and their pictures at ±s around them, pairs of a person differ by 8 s² / 3 in the
    mean square, pairs of two people by 8 a² / 3 + 2 s², and the axes are uncorrelated.
    """
    corners = np.array([[x, y] for x in (-1, 1) for y in (-1, 1)], float)
    apart, spread = np.array(apart), np.array(spread)
    points = (corners * apart)[:, None] + corners * spread
    return points.reshape(16, 2), np.repeat(np.arange(4), 4), 8 * spread**2 / 3, 8 * apart**2 / 3 + 2 * spread**2


@pytest.mark.parametrize("apart, spread", [((3.0, 1.0), (0.5, 0.2)), ((3.0, 0.0), (0.5, 2.0))])
def test_metrics_of_a_design_solved_by_hand(apart, spread):
    points, ids, same, different = design(apart, spread)
    assert all(np.allclose(ours, np.diag(theirs)) for ours, theirs in zip(pair_covariances(points, ids), (same, different)))
    ridge = 0.1 * different.mean()
    by_hand = {"kissme": 1 / (same + ridge) - 1 / (different + ridge), "xqda": 1 / (same + 1e-3) - 1 / different}
    for name, weights in by_hand.items():
        matrix = METRICS[name](points, ids).matrix.astype(float)
        assert np.allclose(matrix @ matrix.T, np.diag(np.maximum(weights, 0)), rtol=1e-3, atol=1e-5), name
