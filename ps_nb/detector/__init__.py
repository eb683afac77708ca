"""Networks that find every person of a scene and give each a feature."""

from .settings import DetectorSettings, Sampled
from .backbones import Backbone, load_weights, normalise
from .parts import BODY, PART_NAMES, RelativeAttention, only_part, relative_similarity, row_weights, split_parts
from .searcher import PersonSearcher
from .softmax_heads import softmax_searcher
from .reppoints import RepPointsSearcher, own_points, point_boxes, point_losses
from .inference import detect_image, detect_scenes, embed_boxes, embed_queries, embed_scenes

__all__ = [
    "BODY", "Backbone", "DetectorSettings", "PART_NAMES", "PersonSearcher", "RelativeAttention", "RepPointsSearcher",
    "Sampled", "detect_image", "detect_scenes", "embed_boxes", "embed_queries", "embed_scenes", "load_weights",
    "normalise", "only_part", "own_points", "point_boxes", "point_losses", "relative_similarity", "row_weights",
    "softmax_searcher", "split_parts",
]
