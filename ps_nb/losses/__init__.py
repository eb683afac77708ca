"""The losses of the five papers, one function each."""

from .matching import cosine_verification, online_instance_matching
from .softmax import draw_classes, sampled_softmax
from .contrast import centroid_contrast, hard_negatives, quadruplet
from .siamese import row_contrast, self_consistency, similarity_consistency
from .members import member_loss

__all__ = [
    "centroid_contrast", "cosine_verification", "draw_classes", "hard_negatives", "member_loss", "online_instance_matching",
    "quadruplet", "row_contrast", "sampled_softmax", "self_consistency", "similarity_consistency",
]
