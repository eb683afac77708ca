"""Scores of detection and search, with every published evaluator's settings."""

from .metrics import average_precision, box_overlap, match_threshold
from .settings import EvaluationSettings, PRESETS, PRESET_ORIGINS
from .detection import evaluate_detection
from .ranking import evaluate, evaluate_search, score_search, unit_length
from .comparison import Condition, Estimate, bounds, estimate, estimates
from .models import compare_models, query_table, worst_queries

__all__ = [
    "Condition", "Estimate", "EvaluationSettings", "PRESETS", "PRESET_ORIGINS", "average_precision", "bounds", "box_overlap",
    "compare_models", "estimate", "estimates", "evaluate", "evaluate_detection", "evaluate_search", "match_threshold",
    "query_table", "score_search", "unit_length", "worst_queries",
]
