"""Every experiment runs at `smoke` and leaves a whole result, one of each paper as `ps-nb reproduce` runs it, in a kernel of its
own. The others run in copies of a process that has imported the library. All of them share one run folder.
"""

import ast
import os
import sys
import tempfile
from itertools import product
from pathlib import Path

import pytest

from ps_nb.core import UserError, read_json
from ps_nb.reproduction.many_runs import TRAINS, code_cells, reproduce, step_through
from ps_nb.reproduction.notebooks import experiment_notebooks, result_difference, result_file, settled_parameters
from ps_nb.reproduction.results import published_artefact

FOLDER = Path(__file__).parent.parent / "nbs" / "experiments"
EXPERIMENTS = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.ipynb"))
REPRODUCED = {each for each, before in zip(EXPERIMENTS, ["", *EXPERIMENTS]) if Path(each).parent != Path(before).parent}
PARAMETERS = {  # where the defaults would leave something untried, or sweeps are longer than a test needs
    "beyond/all_systems": {"images": 1},
    "cgps/fig3d_clusters": {"seeds": "0,1"},
    "cgps/fig3a_alpha1": {"weights": "0,1"},
    "cgps/fig3b_alpha2": {"weights": "0,0.25"},
    "cgps/fig3c_hard_negatives": {"ratios": "0.2,0.6"},
    "cgps/fig5_samples": {"shares": "0.5,1"},
    "cgps/tab3_two_step": {"images": 1},
    "cgps/tab4_backbones": {"backbones": "resnet18,resnet34", "images": 1},
    "cgps/tab6_detector_boxes": {"detectors": "HOG,searcher"},
}


@pytest.fixture
def folders(tmp_path, tmp_path_factory, monkeypatch):
    "Results are the test's own; runs belong to all tests, whichever process they are in; every kernel computes on one core."
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "experiments"
    monkeypatch.setenv("PS_NB_RUNS", str(shared))
    monkeypatch.setenv("PS_NB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for variable in ("PS_NB_MOT", "PS_NB_CUHK_PROTOCOL", "PS_NB_PRW"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def run_cells(notebook, parameters, environment, messages):
    "Run all cells of `notebook`; the error that ends it goes to `messages`, and the process ends with 1."
    os.environ |= environment
    tempfile.tempdir = None  # that of the environment
    with open(messages, "w") as sys.stdout:
        os.chdir(notebook.parent)
        if reason := step_through(notebook, parameters):
            print(reason)
    sys.exit(reason is not None)


def run(fresh, key, name, parameters, messages):
    "As `reproduce`, in a copy of a process that has imported the library."
    notebook, = experiment_notebooks(key, [name])
    settled = settled_parameters(notebook, {"profile": "smoke", **(parameters or {})})
    process = fresh.Process(target=run_cells, args=(notebook.absolute(), settled, dict(os.environ), messages))
    process.start()
    process.join()
    assert process.exitcode == 0, messages.read_text()[-4000:]
    assert result_difference(result_file(notebook, settled), settled) is None


def whole(result, about):
    "Every row has its keys and numbers that can be, and every claim its verdict."
    assert result["profile"] == "smoke" and result["rows"] and set(about["keys"]) <= set(result["columns"])
    measured = set(about["metrics"]) & set(result["columns"])
    shares = [metric for metric in measured if about["metrics"][metric] == "%"]
    for row in result["rows"]:
        assert all(row[key] is not None for key in about["keys"]), row
        values = [row[metric] for metric in measured if row[metric] is not None]
        assert values and all(value >= 0 for value in values), row
        assert all(row[metric] <= 1 for metric in shares if row[metric] is not None), row
    assert [claim["id"] for claim in result["claims"]] == [claim["id"] for claim in about["claims"]]
    assert all(claim["evidence"] for claim in result["claims"])


def check_all_systems(result):
    taught = ("oim", "ctxg", "seqnet")
    again = [row for row in result["rows"] if row["system"] == "seqnet, CBGM"]
    result["rows"] = [row for row in result["rows"] if row not in again]
    systems = [row for row in result["rows"] if row["boxes"] == "detected"]
    told = [row for row in result["rows"] if row["boxes"] == "true"]
    assert systems and len(result["recipes"]) == len({row["system"] for row in systems}), "one run a system and seed"
    for row in systems:
        assert min(row[name] for name in ("parameters", "gflops", "training_seconds", "search_seconds")) > 0
        assert row["detection_ap"] is not None
    for row in told:
        assert row["detection_ap"] is None and row["recall"] == 1 and row["identity_labels"] is (row["system"] in taught)
    assert {row["system"] for row in systems} == {*taught, "rsiam", "cgps", "cucps"} < {row["system"] for row in told}
    for row, other in zip(again, (row for row in systems if row["system"] == "seqnet"), strict=True):
        same = [[each[name] for name in ("gallery_size", "recall", "detection_ap")] for each in (row, other)]
        assert same[0] == same[1], "the same people, ranked again"
    for key in {(row["system"], row["boxes"]) for row in result["rows"]}:
        own = [row for row in result["rows"] if (row["system"], row["boxes"]) == key]
        assert [row["gallery_size"] for row in own] == [row["gallery_size"] for row in systems[: len(own)]] and len(own) > 1
        falling = [row["map"] for row in own]
        assert falling == sorted(falling, reverse=True), "a larger gallery that holds the smaller one cannot be easier"


def check_all_protocols(result):
    rows = {(row["dataset"], row["protocol"]): row for row in result["rows"]}
    for dataset in ("cuhk-sysu", "prw"):
        plain, again = rows[dataset, "seqnet"], rows[dataset, "seqnet, CBGM"]
        assert (again["recall"], again["detection_ap"]) == (plain["recall"], plain["detection_ap"]), "the same people"


def check_real_video(result):
    assert result["picture"] is None, "no picture of real people is written"
    rows = {(row["method"], row["boxes"]): row for row in result["rows"]}
    learned = rows.pop(("after training", "detected in the training scenes"))
    assert learned["map"] is None and 0 <= learned["detection_recall"] <= 1
    assert len(rows) == 5 and {("after training", "true"), ("after training", "detected")} < set(rows)
    queries = {row["queries"] for row in rows.values()}
    assert len(queries) == 1 and queries.pop() >= 5
    assert rows["colour histogram", "true"]["map"] > 0.2, "people in video keep their clothes on"


def check_tab1_statistics(result):
    rows = {(row["dataset"], row["split"]): row for row in result["rows"]}
    for count in ("identities", "images", "boxes"):
        parts = [rows["cuhk-twin", split][count] for split in ("train", "test", "all")]
        assert parts[0] + parts[1] == parts[2] > 0
    if ("cuhk", "test, as in TestG100.mat") in rows:
        official, paper = rows["cuhk", "test, as in TestG100.mat"], published_artefact("e2e", "tab1_statistics")["rows"][2]
        assert (official["identities"], official["images"]) == (paper["identities"], paper["images"])


def check_fig2_heights(result):
    groups = {row["people"] for row in result["rows"]}
    assert {"query people", "background people"} <= groups and len(groups) == len(result["data"]) + 1
    for group in groups:
        assert sum(row["share"] for row in result["rows"] if row["people"] == group) == pytest.approx(1)


def check_fig3_subsets(result):
    rows = {row["subset"]: row for row in result["rows"]}
    assert list(rows) == ["high resolution", "occlusion", "low resolution"] and result["picture"]
    assert rows["high resolution"]["least_height"] > rows["low resolution"]["greatest_height"]


def check_tab2_detectors_reid(result):
    rows = {(row["detector"], row["method"]): row for row in result["rows"]}
    methods = {"DSIFT+Euclidean", "DSIFT+KISSME", "BoW+cosine", "IDNet"}
    assert set(rows) == {(name, method) for name in ("ACF", "Deep", "GT") for method in methods} | {("joint", "joint")}
    assert all(rows["GT", method]["recall"] == 1 for method in methods), "true boxes miss nobody"
    assert len({rows["Deep", method]["recall"] for method in methods}) == 1, "the boxes do not depend on their description"
    assert len(set(result["recipes"])) == 4, "ACF, Deep, IDNet and joint"


def check_fig5_detector_pr(result):
    for name in {row["detector"] for row in result["rows"]}:
        recalls = [row["recall"] for row in result["rows"] if row["detector"] == name]
        assert recalls == sorted(set(recalls)) and all(round(100 * recall, 6).is_integer() for recall in recalls)


def check_fig6_training(result):
    rows = {(row["strategy"], row["iteration"]): row for row in result["rows"]}
    strategies = list(dict.fromkeys(row["strategy"] for row in result["rows"]))
    assert len(strategies) == 3
    for strategy in strategies:
        assert [row["map"] is not None for (name, _), row in rows.items() if name == strategy] == [False, True]
        assert sorted(step for name, step in rows if name == strategy) == sorted(step for name, step in rows if
                                                                                 name == strategies[0])


def check_fig7b_gallery_size(result):
    for method in ("joint", "Deep+BoW"):
        rows = [row for row in result["rows"] if row["method"] == method]
        assert [row["gallery_size"] for row in rows] == sorted({row["gallery_size"] for row in result["rows"]})
        falling = [row["top1"] for row in rows]
        assert falling == sorted(falling, reverse=True), "a larger gallery that holds the smaller one cannot be easier"


def check_one_search(key, *values):
    "A row of each data set for each of `values` of column `key`, on the same detections: nobody is missed in one row only."
    def check(result):
        for dataset in ("cuhk", "prw"):
            rows = [row for row in result["rows"] if row["dataset"] == dataset]
            assert [row[key] for row in rows] == list(values)
            assert len({row["recall"] for row in rows}) == len({row["queries"] for row in rows}) == 1
    return check


def check_fig4_attention(result):
    pairs = {row["pair"] for row in result["rows"]}
    assert pairs == {"positive 1", "positive 2", "negative 1", "negative 2"} and result["picture"]
    for pair in pairs:
        assert sum(row["attention"] for row in result["rows"] if row["pair"] == pair) == pytest.approx(1, abs=1e-5)


def check_coappearance(result):
    real = {row["capacity"]: row for row in result["rows"] if row["dataset"] == "PRW"}
    if "PS_NB_PRW" in os.environ:  # its annotations, complete: 5,704 and 6,112 images
        assert sum(row["pairs"] for row in real.values()) == 1034341 and real[1]["several"] == 0
        assert result["claims"][0]["holds"] and result["claims"][0]["evidence"]["PRW"] > 0.9
    assert all(abs(row["single"] + row["several"] - 1) < 1e-9 for row in result["rows"])


def check_labelled_boxes(result):
    rows = {row["dataset"]: row for row in result["rows"]}
    assert ("prw" in rows) == ("PS_NB_PRW" in os.environ) and {"cuhk-twin", "prw-twin"} <= set(rows)
    if "prw" in rows:
        assert [rows["prw"][name] for name in ("images", "identities", "labelled", "unlabelled")] == [5704, 483, 14907, 3141]


def check_tab1_contexts(result):
    combinations = {(row["detection"], row["memory"], row["scene"]) for row in result["rows"]}
    assert len(combinations) == len(result["rows"]) == len(set(result["recipes"])) == 8
    assert all(row["clusters"] >= 1 for row in result["rows"])


def check_fig3c_hard_negatives(result):
    rows = {(row["strategy"], row["ratio"]): row for row in result["rows"]}
    assert set(rows) == {(strategy, ratio) for strategy in ("confidence", "number") for ratio in (0.2, 0.6)}


def check_fig3d_clusters(result):
    rows = {(row["scene_context"], row["epoch"]): row for row in result["rows"]}
    assert all(row["seeds"] == 2 and row["clusters_std"] is not None for row in rows.values()) and len(result["recipes"]) == 4
    assert {epoch for _, epoch in rows} == set(range(1, len(rows) // 2 + 1)), "epochs are counted from 1"
    assert len({row["people"] for row in rows.values()}) == 1
    first = rows[False, 1], rows[True, 1]  # of the same starting weights, so the constraint alone makes the difference
    assert first[0]["wrong_members"] == first[1]["wrong_members"] and first[0]["clusters"] <= first[1]["clusters"]


def check_laptop(result):
    ours = {(row["software"], row["proposals"], row["input"]): row for row in result["rows"] if row["gflops"]}
    assert len({row["parameters"] for row in ours.values()}) == 1 and len(result["recipes"]) == 1
    sizes = {size for *_, size in ours}
    for software, size in product(("PyTorch", "bfloat16"), sizes):
        few, many = (ours[software, count, size] for count in (100, 300))
        assert few["gflops"] < many["gflops"], "each proposal is work"
        assert few["detection_recall"] <= many["detection_recall"], "fewer are looked at"
    assert all(row["map"] is None for key, row in ours.items() if key[0] == "onnxruntime"), "not scored"
    others = {row["network"]: row["proposals"] for row in result["rows"] if row["network"].startswith("fasterrcnn")}
    assert others == {"fasterrcnn_resnet50_fpn": 1000, "fasterrcnn_mobilenet_v3_large_320_fpn": 150}, "torchvision's defaults"


CHECKS = {"beyond/all_systems": check_all_systems, "beyond/all_protocols": check_all_protocols,
          "beyond/real_video": check_real_video, "beyond/laptop": check_laptop,
          "e2e/tab1_statistics": check_tab1_statistics, "e2e/fig2_heights": check_fig2_heights,
          "e2e/fig3_subsets": check_fig3_subsets, "e2e/tab2_detectors_reid": check_tab2_detectors_reid,
          "e2e/fig5_detector_pr": check_fig5_detector_pr, "e2e/fig6_training": check_fig6_training,
          "e2e/fig7b_gallery_size": check_fig7b_gallery_size, "cucps/fig4_coappearance": check_coappearance,
          "ctxg/tab1_parts": check_one_search("regions", "upper", "middle", "lower", "whole", "uniform"),
          "ctxg/tab2_components": check_one_search("method", "uniform", "attention", "graph"),
          "ctxg/tab5_graph_structure": check_one_search("graph", "none", "siamese", "pairs"),
          "ctxg/fig4_attention": check_fig4_attention, "ctxg/fig5_context_size": check_one_search("context_size", 1, 2, 3),
          "rsiam/tab1_statistics": check_labelled_boxes, "cgps/tab1_contexts": check_tab1_contexts,
          "cgps/fig3c_hard_negatives": check_fig3c_hard_negatives, "cgps/fig3d_clusters": check_fig3d_clusters}


def test_no_helper_of_an_experiment_trains():
    "Nothing is executed after the last cell that names a training when missing runs are listed, so none may hide in a helper."
    for experiment in EXPERIMENTS:
        for source, _ in code_cells(FOLDER / f"{experiment}.ipynb"):
            helpers = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
            assert not any(TRAINS.search(ast.unparse(helper)) for helper in helpers), experiment


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_runs_at_smoke(folders, monkeypatch, fresh, experiment):
    if experiment == "beyond/real_video":
        data = os.environ.get("PS_NB_TEST_DATA")
        if not data or not (Path(data) / "mot").is_dir():
            pytest.skip("PS_NB_TEST_DATA names no folder with mot/, the MOTChallenge sequences")
        monkeypatch.setenv("PS_NB_MOT", str(Path(data) / "mot"))
    protocol = Path(os.environ.get("PS_NB_TEST_DATA", "absent")) / "cuhk-sysu" / "TestG100.mat"
    if experiment in ("e2e/tab1_statistics", "e2e/fig2_heights") and protocol.is_file():
        monkeypatch.setenv("PS_NB_CUHK_PROTOCOL", str(protocol))
    annotations = Path(os.environ.get("PS_NB_TEST_DATA", "absent")) / "prw"
    if experiment in ("cucps/fig4_coappearance", "rsiam/tab1_statistics") and annotations.is_dir():
        monkeypatch.setenv("PS_NB_PRW", str(annotations))
    key, name = experiment.split("/")
    if experiment in REPRODUCED:
        assert reproduce(key, [name], parameters=PARAMETERS.get(experiment)) == {}
    else:
        run(fresh, key, name, PARAMETERS.get(experiment), folders / "messages")
    result = read_json(folders / "results" / "smoke" / key / f"{name}.json")
    whole(result, published_artefact(key, name))
    CHECKS.get(experiment, lambda result: None)(result)
    pictures = [path.name for path in (folders / "results").rglob("*.png")]
    assert pictures == ([result["picture"]] if result["picture"] else [])


def test_every_experiment_is_named_after_an_artefact():
    for key in {experiment.split("/")[0] for experiment in EXPERIMENTS}:
        listed = {f"{key}/{path.stem}" for path in experiment_notebooks(key)}
        assert listed == {each for each in EXPERIMENTS if each.startswith(f"{key}/")}


def test_video_that_is_not_there_is_one_line_and_no_result(folders):
    reason = reproduce("beyond", ["real_video"])["real_video"]
    assert reason.startswith("UserError: ") and "set the environment variable PS_NB_MOT" in reason and "\n" not in reason
    assert not (folders / "results" / "smoke").exists()


def test_a_parameter_that_does_not_exist_is_refused_before_any_work(folders):
    with pytest.raises(UserError, match="no parameter system: it has profile, seeds, dataset, images"):
        reproduce("beyond", ["all_systems"], parameters={"system": "oim"})
