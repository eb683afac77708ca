"""The context graph: pairs of people around two targets decide whether the targets are one person."""

from .layers import PairGraph, SiameseGraph, normalised, propagate, star
from .crowd import Asked, companions, make_crowd
from .scorer import ContextScorer, GraphSettings, asked_by, attention_rescorer, context_rescorer, joined_pairs, score_targets
from .learning import pair_losses, train_scorer
from .bipartite import CONTEXT_SIZES, bipartite_rescorer

__all__ = [
    "Asked", "CONTEXT_SIZES", "ContextScorer", "GraphSettings", "PairGraph", "SiameseGraph", "asked_by", "attention_rescorer",
    "bipartite_rescorer", "companions", "context_rescorer", "joined_pairs", "make_crowd", "normalised", "pair_losses",
    "propagate", "score_targets", "star", "train_scorer",
]
