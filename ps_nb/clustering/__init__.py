"""Clusters of unlabelled people, and how good they are."""

from .density import (
    choose_eps, density_clusters, independence_threshold, jaccard_distances, reliable_clusters, scene_mates, self_paced_clusters,
    separate_scene_mates,
)
from .first_neighbours import first_neighbour_clusters, first_neighbours
from .mining import mine, mine_pass
from .quality import co_appearance, pair_quality, pair_scores

__all__ = [
    "choose_eps", "co_appearance", "density_clusters", "first_neighbour_clusters", "first_neighbours", "independence_threshold",
    "jaccard_distances", "mine", "mine_pass", "pair_quality", "pair_scores", "reliable_clusters", "scene_mates",
    "self_paced_clusters", "separate_scene_mates",
]
