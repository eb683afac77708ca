"""Memories, objectives and the training loop."""

from .identities import NoObjective
from .part_matching import PartObjective
from .contexts import ContextObjective
from .region_siamese import RegionSiameseObjective, describe_everybody, fuse
from .loop import Schedule, train
from .crops import CropTraining, crop_batch, describe_crops, training_crops
from .starting_weights import ObjectTraining, object_weights, spread_features
from .memory import InstanceMemory, PersonMemory

__all__ = [
    "ContextObjective", "CropTraining", "InstanceMemory", "NoObjective", "ObjectTraining", "PartObjective", "PersonMemory",
    "RegionSiameseObjective", "Schedule", "crop_batch", "describe_crops", "describe_everybody", "fuse", "object_weights",
    "spread_features", "train", "training_crops",
]
