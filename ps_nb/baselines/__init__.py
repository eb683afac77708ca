"""Hand-crafted detectors, descriptions and metrics, and unsupervised re-identification."""

from .describe import features_of_boxes, features_of_detections, features_of_queries, true_boxes
from .colours import bag_of_words, colour_histogram, learn_codebook
from .textures import dense_sift
from .metric_learning import kissme, principal_components, project, project_detections
from .handcrafted import HANDCRAFTED, describe_detections, learn_description
from .acf import apply_detector, detect_acf, detect_hog
from .unsupervised_reid import described_by, detected_crops, reid_network, reid_training

__all__ = [
    "HANDCRAFTED", "apply_detector", "bag_of_words", "colour_histogram", "dense_sift", "describe_detections", "described_by",
    "detect_acf", "detect_hog", "detected_crops", "features_of_boxes", "features_of_detections", "features_of_queries",
    "kissme", "learn_codebook", "learn_description", "principal_components", "project", "project_detections", "reid_network",
    "reid_training", "true_boxes",
]
