"""The systems as recipes, and runs of them."""

from .recipes import (
    OBJECTIVES, cgps, ctxg, cucps, deep, idnet, joint, oim, rsiam, rsiam_components, rsiam_larger,
    seqnet, training_strategies, with_contexts, without_crops,
)
from .runs import (
    Run, data_folder, find_people, foreign_set, load_run, new_network, new_objective, new_searcher,
    on_true_boxes, runs_folder, search_set, searched, starting_backbone, trained, training_scenes,
)
from .graph_stage import context_graph, graph_name, relative_attention, trained_scorer, true_crowd
from .two_step import METHODS, trained_on_crops, two_step, two_step_cost
from .acf import acf_detections, trained_acf
from .quickstart import by_colour, quickstart, score_row

__all__ = [
    "METHODS", "OBJECTIVES", "Run", "acf_detections", "by_colour", "cgps", "context_graph", "ctxg",
    "cucps", "data_folder", "deep", "find_people", "foreign_set", "graph_name", "idnet", "joint",
    "load_run", "new_network", "new_objective", "new_searcher", "oim", "on_true_boxes", "quickstart",
    "relative_attention", "rsiam", "rsiam_components", "rsiam_larger", "runs_folder", "score_row", "search_set", "searched",
    "seqnet", "starting_backbone", "trained", "trained_acf", "trained_on_crops", "trained_scorer", "training_scenes",
    "training_strategies", "true_crowd", "two_step", "two_step_cost", "with_contexts", "without_crops",
]
