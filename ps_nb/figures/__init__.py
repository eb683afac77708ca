"""Pictures of scenes, ranked people and results."""

from .drawing import PaperFigure, paper_style, sighting
from .plots import (
    GalleryRow, ScenePanel, curves, histograms, precision_recall_curves, ranked_gallery, scene_grid, shares, training_curves,
)
from .cases import (
    ComparedPair, attention_picture, cluster_row, context_picture, first_ranks, median_query, ranked_picture, ranked_row,
    turned_right,
)
from .architecture import architecture

__all__ = [
    "ComparedPair", "GalleryRow", "PaperFigure", "ScenePanel", "architecture", "attention_picture", "cluster_row",
    "context_picture", "curves", "first_ranks", "histograms", "median_query", "paper_style", "precision_recall_curves",
    "ranked_gallery", "ranked_picture", "ranked_row", "scene_grid", "shares", "sighting", "training_curves",
    "turned_right",
]
