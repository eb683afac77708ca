"""Scores of detection and search, with every published evaluator's settings."""

from .metrics import average_precision, box_overlap, match_threshold
from .settings import EvaluationSettings, PRESETS, PRESET_ORIGINS
from .detection import evaluate_detection
from .ranking import evaluate, evaluate_search, score_search, unit_length

__all__ = [
    "EvaluationSettings", "PRESETS", "PRESET_ORIGINS", "average_precision", "box_overlap", "evaluate", "evaluate_detection",
    "evaluate_search", "match_threshold", "score_search", "unit_length",
]
