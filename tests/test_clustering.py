"""Clustering: equal to slow dense versions, no two people of a scene in a cluster, input that is strange or wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from ps_nb.clustering.density import (
    consecutive_labels,
    density_clusters,
    independence_threshold,
    jaccard_distances,
    nearest_people,
    neighbourhoods,
    reliable_clusters,
    scene_mates,
    self_paced_clusters,
    separate_scene_mates,
)
from ps_nb.clustering.quality import pair_scores
from ps_nb.core import UserError


def unit(seed, total, groups, size=8, noise=0.6):
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((groups, size))[generator.integers(0, groups, total)]
    rows = rows + noise * generator.standard_normal((total, size))
    return torch.nn.functional.normalize(torch.from_numpy(rows.astype(np.float32)), dim=1)


def dense_jaccard(features, k1, k2):
    "The definition on whole matrices."
    order = (-(features.double() @ features.double().T)).numpy().argsort(axis=1, kind="stable")
    total = len(order)
    among = {width: np.zeros((total, total), bool) for width in (k1, round(k1 / 2) + 1)}
    for width, table in among.items():
        np.put_along_axis(table, order[:, :width], True, axis=1)
        table &= table.T
    inner, circle = (among[width] for width in (k1, round(k1 / 2) + 1))
    weights = np.zeros((total, total))
    for i in range(total):
        members = inner[i].copy()
        for c in np.flatnonzero(inner[i]):
            if 3 * (circle[c] & inner[i]).sum() > 2 * circle[c].sum():
                members |= circle[c]
        soft = np.exp(2 * (features[i].double() @ features.double().T).numpy()[members])
        weights[i, members] = soft / soft.sum()
    weights = weights[order[:, :k2]].mean(axis=1)
    return 1 - np.stack([np.minimum(row, weights).sum(1) / np.maximum(row, weights).sum(1) for row in weights])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 12), st.integers(1, 14), st.integers(1, 5))
def test_sparse_distances_and_clusters_are_those_of_the_dense_computation(seed, total, groups, k1, k2):
    features = unit(seed, total, groups)
    dense = dense_jaccard(features, k1, k2)
    sparse = jaccard_distances(features, k1, k2, limit=0.72)
    stored = sparse.tocoo()
    np.testing.assert_allclose(stored.data, dense[stored.row, stored.col], atol=2e-5)
    far = np.ones((total, total), bool)
    far[stored.row, stored.col] = False
    assert (dense[far] > 0.72 - 2e-5).all() and (sparse != sparse.T).nnz == 0
    if np.abs(dense[None] - np.array([0.68, 0.7, 0.72])[:, None, None]).min() > 1e-4:  # nobody just at an eps
        for eps in (0.68, 0.7, 0.72):
            expected = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(dense.clip(0))
            np.testing.assert_array_equal(density_clusters(sparse, eps, 4), consecutive_labels(expected))


def test_the_size_of_blocks_changes_nothing():
    features = unit(0, 200, 20)
    few = nearest_people(features, 12, block_bytes=4 * 200 * 3)
    np.testing.assert_array_equal(few, nearest_people(features, 12))
    assert (few[:, 0] == np.arange(200)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 9), st.integers(1, 12))
def test_no_two_people_of_a_scene_share_a_cluster(seed, total, clusters, scenes):
    generator = np.random.default_rng(seed)
    features = unit(seed, total, 5).numpy()
    labels, where = generator.integers(0, clusters, total), generator.integers(0, scenes, total)
    after = separate_scene_mates(labels, features, where)
    assert scene_mates(after, where) == (0, 0) and sorted(set(after)) == list(range(after.max() + 1))
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        centre = features[members].mean(axis=0)
        kept = [max(np.flatnonzero((labels == cluster) & (where == scene)), key=lambda n: (round(features[n] @ centre, 5), -n))
                for scene in np.unique(where[members])]
        assert len(set(after[kept])) == 1, "the nearest of each scene stay together"
        assert len(set(after[members])) == 1 + len(members) - len(kept), "everybody else is alone"
    again = separate_scene_mates(after, features, where)
    np.testing.assert_array_equal(after, again)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_reliability_is_that_of_the_dense_computation(seed, total):
    generator = np.random.default_rng(seed)
    labels, tight, loose = (consecutive_labels(generator.integers(-1, 6, total)) for _ in range(3))
    same, same_tight, same_loose = (np.equal.outer(each, each) for each in (labels, tight, loose))
    compactness, change = (1 - (same & other).sum(1) / (same | other).sum(1) for other in (same_tight, same_loose))
    threshold = independence_threshold(labels, loose)
    several = [change[labels == each].min() for each in np.unique(labels) if (labels == each).sum() > 1]
    expected = np.sort(several)[min(len(several) - 1, int(np.round(0.9 * len(several))))] if several else np.inf
    assert threshold == expected
    keep = [change[labels == own].min() <= threshold and compactness[n] <= compactness[labels == own].min()
            for n, own in enumerate(labels)]
    np.testing.assert_array_equal(reliable_clusters(labels, tight, loose, threshold),
                                  consecutive_labels(np.where(keep, labels, -1)))


def test_identical_features():
    features = torch.nn.functional.normalize(torch.ones(50, 4), dim=1)
    labels, _, facts = self_paced_clusters(features, np.arange(50), np.inf)
    assert len(labels) == 50 and facts["same_scene_pairs"] == 0
    separated, _, facts = self_paced_clusters(features, np.zeros(50, int), np.inf)
    assert facts["clusters"] == 50, "people of one scene are different people, however alike"
    few, _, facts = self_paced_clusters(features[:10], np.arange(10), np.inf)
    assert facts["clusters"] == 1 and (few == 0).all()


def test_no_cluster_at_all_leaves_the_threshold_open():
    features = torch.eye(12)
    labels, threshold, facts = self_paced_clusters(features, np.arange(12), np.inf, k1=2, k2=1)
    assert (labels == np.arange(12)).all() and threshold == np.inf and facts["unclustered"] == 12
    assert pair_scores(labels, np.arange(12)) == {"cluster_precision": None, "cluster_recall": None}


@pytest.mark.parametrize("total", [1, 2])
def test_fewer_people_than_neighbours(total):
    labels, _, facts = self_paced_clusters(unit(0, total, 3), np.arange(total), np.inf)
    assert labels.tolist() == list(range(total)) and facts["clusters"] == total


def test_everybody_alone_in_the_scene():
    features = unit(1, 60, 6, noise=0.2)
    free, _, _ = self_paced_clusters(features, np.arange(60), np.inf, k1=8, k2=3, scene_context=False)
    bound, _, _ = self_paced_clusters(features, np.arange(60), np.inf, k1=8, k2=3, scene_context=True)
    np.testing.assert_array_equal(free, bound)


def test_features_that_are_not_finite():
    features = unit(0, 5, 2)
    features[3, 0] = torch.nan
    with pytest.raises(UserError, match="NaN or infinity"):
        neighbourhoods(features)
