"""Memories, objectives and the training loop."""

from .memory import InstanceMemory, PersonMemory
from .identities import Classification, DetectionOnly, NoObjective
from .contexts import ContextObjective, Contexts
from .region_siamese import RegionSiameseObjective, describe_all_people, fuse
from .loop import Objective, Schedule, train
from .crops import CropNetwork, CropTraining, crop_batch, describe_crops, training_crops
from .starting_weights import ObjectTraining, object_weights, whiten_features

__all__ = [
    "Classification", "ContextObjective", "Contexts", "CropNetwork", "CropTraining", "DetectionOnly", "InstanceMemory",
    "NoObjective", "ObjectTraining", "Objective", "PersonMemory", "RegionSiameseObjective", "Schedule", "crop_batch",
    "describe_all_people", "describe_crops", "fuse", "object_weights", "train", "training_crops", "whiten_features",
]
