"""Data sets as scenes, queries and protocols: official layouts, other formats, batches and checks."""

from ..core import imported_when_asked

__getattr__, __all__ = imported_when_asked(
    __name__,
    scenes="Detections Protocol Query Scene SearchSet gallery_sizes largest_protocol load_detections split_statistics "
           "usual_protocol",
    cuhk_sysu="read_cuhk_protocol read_cuhk_sysu",
    prw="read_prw",
    detections="detections_from_lists read_coco_results read_detections",
    formats="FORMATS read_mot read_prw_annotations read_search_set",
    images="InputSize read_image",
    loading="Augmentation SceneBatches",
    checks="check_search_set",
    training_sets="combined training_subset without_identities",
)
