"""Memories, objectives and the training loop."""

from .memory import InstanceMemory
from .identities import Classification, DetectionOnly, NoObjective
from .contexts import ContextObjective, Contexts
from .region_siamese import describe_everybody, fuse
from .loop import Objective, Schedule, train
from .crops import CropNetwork, CropTraining, crop_batch, describe_crops, training_crops
from .starting_weights import ObjectTraining, object_weights, spread_features

__all__ = [
    "Classification", "ContextObjective", "Contexts", "CropNetwork", "CropTraining", "DetectionOnly", "InstanceMemory",
    "NoObjective", "ObjectTraining", "Objective", "Schedule", "crop_batch", "describe_crops", "describe_everybody", "fuse",
    "object_weights", "spread_features", "train", "training_crops",
]
