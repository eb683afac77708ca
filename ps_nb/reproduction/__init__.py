"""Results, verdicts, the report, and what the experiments share."""

from .results import (
    COUNT, above_all, all_hold, any_holds, check_parameters, decide, decreasing, increasing, interior_best, over_seeds,
    published_artefact, run_origins, undecided, verdict, write_result,
)
from .report import write_report
from .cost import detection_gflops, milliseconds_per_image, parameter_count, search_memory_mb
from .joint_rows import (
    crop_describer, false_alarms, operations_per_image, precision_at, recall_thresholds, run_detector, search_scores,
    seconds_per_image, trained_joint,
)
from .context_rows import (
    DATASETS, compare_parts, context_origins, context_scores, graph_facts, hidden_parts, painted, part_rows, shared_company,
)
from .weak_rows import DETECTORS, detected_boxes, epoch_rows, foreign_boxes, people_in, search_row, sweep
from .throughput import TorchvisionDetector, calm, chosen_precision, differences, fill_memory, noise_batch, random_scenes, speeds
from .growth import APPROXIMATE, PARTS, SOFTWARE, growth_exponent, measured_apart, mining_of, neighbourhoods_of, random_search
from .paper_pages import committed, listing, reported
from .many_runs import reproduce

__all__ = [
    "APPROXIMATE", "COUNT", "DATASETS", "DETECTORS", "PARTS", "SOFTWARE", "TorchvisionDetector", "above_all", "all_hold",
    "any_holds", "calm", "check_parameters", "chosen_precision", "committed", "compare_parts", "context_origins",
    "context_scores", "crop_describer", "decide", "decreasing", "detected_boxes", "detection_gflops", "differences", "epoch_rows",
    "false_alarms", "fill_memory", "foreign_boxes", "graph_facts", "growth_exponent", "hidden_parts", "increasing",
    "interior_best", "listing", "measured_apart", "milliseconds_per_image", "mining_of", "neighbourhoods_of", "noise_batch",
    "operations_per_image", "over_seeds", "painted", "parameter_count", "part_rows", "people_in", "precision_at",
    "published_artefact", "random_scenes", "random_search", "recall_thresholds", "reported", "reproduce", "run_detector",
    "run_origins", "search_memory_mb", "search_row", "search_scores", "seconds_per_image", "shared_company", "speeds",
    "sweep", "trained_joint", "undecided", "verdict", "write_report", "write_result",
]
