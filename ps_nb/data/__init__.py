"""Data sets as scenes, queries and protocols: official layouts, other formats, batches and checks."""

from .scenes import (
    Detections, Protocol, Query, Scene, SearchSet, gallery_sizes, largest_protocol, load_detections, split_statistics,
    usual_protocol,
)
from .cuhk_sysu import read_cuhk_protocol, read_cuhk_sysu
from .prw import read_prw
from .formats import FORMATS, read_mot, read_prw_annotations, read_search_set
from .loading import Augmentation, InputSize, SceneBatches, read_image
from .checks import check_search_set
from .training_sets import combined, training_subset, without_identities

__all__ = [
    "Augmentation", "Detections", "FORMATS", "InputSize", "Protocol", "Query", "Scene", "SceneBatches", "SearchSet",
    "check_search_set", "combined", "gallery_sizes", "largest_protocol", "load_detections", "read_cuhk_protocol",
    "read_cuhk_sysu", "read_image", "read_mot", "read_prw", "read_prw_annotations", "read_search_set", "split_statistics",
    "training_subset", "usual_protocol", "without_identities",
]
