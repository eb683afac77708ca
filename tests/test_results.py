"""Parameters, verdicts, result files, the papers' numbers and the report made of them."""

import json
import math
import subprocess

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from ps_nb.core import UserError, read_json, write_json
from ps_nb.evaluation.comparison import Condition, bounds, estimate, estimates
from ps_nb.reproduction import results
from ps_nb.reproduction.report import matched_rows, report, value_table, write_report
from ps_nb.reproduction.results import (
    KEYS,
    above_all,
    all_hold,
    any_holds,
    changed_files,
    check_parameters,
    code_state,
    decide,
    decreasing,
    how_sure,
    increasing,
    interior_best,
    over_seeds,
    published,
    published_artefact,
    repository,
    undecided,
    verdict,
    word_of,
    write_result,
)

ROOT = results.repository()
GOOD = {"profile": "smoke", "seeds": "0"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PS_NB_RESULTS", str(tmp_path / "out"))
    return tmp_path / "out"


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("changed, message", [
    ({"profile": "smal"}, "profile = 'smal': choose one of smoke, small, medium, full, paper"),
    ({"profile": None}, "choose one of"),
    ({"seeds": "0,x"}, "'x' is not int"),
    ({"seeds": ""}, "'' is not int"),
    ({"seeds": "1,1"}, "there twice"),
    ({"seeds": "0.5"}, "'0.5' is not int"),
    ({"epochs": "2"}, "epochs = '2': must be int"),
    ({"epochs": True}, "must be int"),
    ({"epochs": 2.0}, "must be int"),
    ({"rate": "3e-4"}, "write 3.0e-4"),
    ({"rate": float("nan")}, "must be float"),
    ({"name": ""}, "must be str"),
    ({"methods": "bow,hog"}, "choose one of bow, joint"),
    ({"flag": 1}, "must be bool"),
])  # fmt: skip
def test_a_wrong_parameter_stops_before_any_work(changed, message):
    values = GOOD | {"epochs": 1, "rate": 0.1, "name": "x", "methods": "bow", "flag": False} | changed
    kinds = {"epochs": int, "rate": float, "name": str, "methods": [("bow", "joint")], "flag": bool}
    with pytest.raises(UserError) as caught:
        check_parameters(values, **kinds)
    assert message in str(caught.value)


def test_a_missing_parameter_is_named():
    with pytest.raises(UserError, match="no 'seeds'"):
        check_parameters({"profile": "smoke"})
    with pytest.raises(UserError, match="no 'epochs'"):
        check_parameters(GOOD, epochs=int)


def test_parameters_are_typed_and_frozen():
    values = GOOD | {"rate": 1, "sizes": "50, 100", "methods": "joint,bow", "other": 5}
    parameters = check_parameters(values, rate=float, sizes=[int], methods=[("bow", "joint")])
    assert type(parameters.rate) is float and parameters.sizes == (50, 100) and parameters.methods == ("joint", "bow")
    assert not hasattr(parameters, "other")
    with pytest.raises(AttributeError):
        parameters.rate = 2.0
    assert check_parameters(GOOD | {"seeds": 3}).seeds == (3,)  # papermill's -p turns "3" into a number


# ---------------------------------------------------------------- seeds and verdicts


def test_over_seeds_keeps_order_texts_and_absent_numbers():
    rows = [{"k": "b", "seed": 0, "map": 0.1, "note": "x"}, {"k": "a", "seed": 0, "map": None, "note": "y"},
            {"k": "b", "seed": 1, "map": 0.3, "note": "x"}]  # fmt: skip
    table = over_seeds(rows, ["k"])
    assert table["k"].tolist() == ["b", "a"] and table["note"].tolist() == ["x", "y"] and table["seeds"].tolist() == [2, 1]
    assert table["map"][0] == pytest.approx(0.2) and table["map_std"][0] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert math.isnan(table["map"][1])


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=6))
def test_verdicts_agree_with_their_definition(numbers):
    values = dict(enumerate(numbers))
    pairs = list(zip(numbers, numbers[1:]))
    assert increasing(values)["holds"] == all(a < b for a, b in pairs)
    assert decreasing(values)["holds"] == all(a > b for a, b in pairs)
    assert increasing(values, ties=True)["holds"] == (all(a <= b for a, b in pairs) and numbers[-1] > numbers[0])
    assert decreasing(values, ties=True)["holds"] == (all(a >= b for a, b in pairs) and numbers[-1] < numbers[0])
    if len(numbers) > 2:
        assert interior_best(values)["holds"] == (max(numbers[1:-1]) > max(numbers[0], numbers[-1]))


def test_a_verdict_without_numbers_is_undecided():
    for outcome in (increasing({}), increasing({"a": 1.0}), decreasing({"a": 1.0, "b": None}), interior_best({1: 1.0, 2: 2.0})):
        assert outcome["holds"] is None and outcome["evidence"]["reason"]
    assert all_hold()["holds"] is None
    assert all_hold(a=verdict(False), b=undecided("x"))["holds"] is False
    assert verdict(np.bool_(True))["holds"] is True
    assert increasing(pd.Series([0.1, 0.2], index=["a", "b"]))["evidence"] == {"a": 0.1, "b": 0.2}


SEARCHES = [{"hpm": hpm, "hnm": hnm, "seed": seed, "map": float(scored.mean()), "clusters": 9,
             "answers": {"queries": "made up", "map": " ".join(f"{value:.4g}" for value in scored)}}
            for seed in (0, 1, 2) for hpm in (False, True) for hnm in (False, True)
            for scored in [np.random.default_rng(seed).integers(0, 2, 60) * (1 - 0.1 * hpm) + 0.2 * hnm]]  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=5))
def test_estimates_decide_as_their_numbers_do(numbers):
    values = {name: estimate({0: value, 1: value}) for name, value in enumerate(numbers)}
    plain = dict(enumerate(numbers))
    for judge in (increasing, decreasing, interior_best, lambda each: above_all(each, 0, [1])):
        outcome = judge(values)
        assert outcome["holds"] == judge(plain)["holds"] and outcome["evidence"] == judge(plain)["evidence"]
        if "claim" in outcome:
            assert (outcome["claim"].value > 0) == outcome["holds"]
            assert bounds(outcome["claim"]) == pytest.approx((outcome["claim"].value,) * 2)  # seeds that agree leave no doubt


def test_the_interval_of_a_claim_is_made_again_from_its_file(folder):
    values = estimates(SEARCHES, ["hpm", "hnm"], "map")
    hnm, hpm = (values[key] - values[False, False] for key in ((False, True), (True, False)))
    claims = {"both_gain": all_hold(hnm=decide(hnm, gain=hnm), hpm=decide(hpm)), "joint_gain_larger": decide(hnm)}
    rows = over_seeds(SEARCHES, ["hpm", "hnm"])
    result = read_json(write_result("cucps", "tab1_mining", check_parameters(GOOD), rows, claims, searches=SEARCHES))
    assert "answers" not in result["columns"] and len(result["searches"]) == 12 and "clusters" not in result["searches"][0]
    again = estimates(result["searches"], ["hpm", "hnm"], "map")
    found = {claim["id"]: claim for claim in result["claims"]}
    gain = again[False, True] - again[False, False]
    loss = again[True, False] - again[False, False]
    both, one = found["both_gain"], found["joint_gain_larger"]
    assert one["interval"] == pytest.approx(bounds(gain)) and word_of(one) == "holds"
    assert both["interval"] == pytest.approx(bounds(Condition("all", (gain, loss)))) and word_of(both) == "does not hold"
    assert both["evidence"]["hnm"]["gain"] == pytest.approx(0.2)
    assert "holds [0.200 to 0.200] |" in report()


def test_one_part_without_noise_leaves_a_claim_with_the_plain_words():
    noisy, single = estimate({0: 1.0, 1: 2.0}), estimate({0: 1.0})
    assert how_sure(all_hold(a=decide(noisy), b=decide(single))) == how_sure(verdict(True)) == {}
    assert word_of(any_holds(a=decide(noisy), b=verdict(False))) == "holds"
    assert word_of(any_holds(a=decide(noisy)) | how_sure(any_holds(a=decide(noisy)))) == "holds, within noise"
    assert any_holds()["holds"] is None and decide(estimate({0: float("nan"), 1: 1.0}))["holds"] is None
    assert any_holds(a=verdict(False), b=undecided("x"))["holds"] is None


# ---------------------------------------------------------------- result files

ROWS = [{"hpm": hpm, "hnm": hnm, "map": 0.1 + 0.2, "top1": None} for hpm in (False, True) for hnm in (False, True)]
CLAIMS = {"both_gain": verdict(True, hnm=0.02, hpm=0.05), "joint_gain_larger": undecided("one seed")}


def test_a_result_file_says_where_its_numbers_come_from(folder):
    parameters = check_parameters(GOOD | {"epochs": 2}, epochs=int)
    origin = {"recipes": {"cucps": "abc"}, "data": {"prw-twin": "def"}, "weights": "objects", "run_seconds": 12.5}
    path = write_result("cucps", "tab1_mining", parameters, ROWS, CLAIMS, **origin, device="cpu")
    assert path == folder / "smoke" / "cucps" / "tab1_mining.json"
    result = read_json(path)
    assert result["rows"] == ROWS and result["rows"][0]["map"] == 0.30000000000000004
    assert result["columns"] == ["hpm", "hnm", "map", "top1"]
    assert result["parameters"] == {"profile": "smoke", "seeds": [0], "epochs": 2} and result["seeds"] == [0]
    assert [claim["holds"] for claim in result["claims"]] == [True, None]
    assert result["claims"][0]["evidence"] == {"hnm": 0.02, "hpm": 0.05}
    assert {name: result[name] for name in origin} == origin
    assert result["seconds"] > 0 and result["device"].startswith("CPU") and result["picture"] is None
    assert pd.read_csv(path.with_suffix(".csv"))["map"].tolist() == [0.30000000000000004] * 4
    assert sorted(file.name for file in path.parent.iterdir()) == ["tab1_mining.csv", "tab1_mining.json"]


@pytest.mark.parametrize("rows, claims, message", [
    (ROWS, {}, "differ in both_gain, joint_gain_larger"),
    (ROWS, CLAIMS | {"third": verdict(True)}, "differ in third"),
    ([{"hpm": True, "map": 0.1}], CLAIMS, "no column hnm"),
    (ROWS + ROWS[:1], CLAIMS, "two rows are called"),
    ([], CLAIMS, "no column hpm, hnm"),
])  # fmt: skip
def test_a_result_that_is_not_whole_is_not_written(folder, rows, claims, message):
    with pytest.raises(UserError) as caught:
        write_result("cucps", "tab1_mining", check_parameters(GOOD), rows, claims)
    assert message in str(caught.value) and not folder.exists()


def test_unknown_papers_and_tables():
    with pytest.raises(UserError, match="choose one of e2e"):
        published("oim")
    with pytest.raises(UserError, match="choose one of tab1_parts"):
        published_artefact("ctxg", "tab9")


def test_a_figure_is_drawn_from_the_csv(folder):
    seen = []

    def draw(table):
        seen.append(table)
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot(table["share"], table["map"])
        return figure

    rows = [{"share": share, "map": share / 3} for share in (0.2, 0.6, 1.0)]
    claims = {"more_is_better": verdict(True)}
    path = write_result("cgps", "fig5_samples", check_parameters(GOOD), rows, claims, figure=draw)
    first = path.with_suffix(".png").read_bytes()
    assert seen[0]["map"].tolist() == [0.2 / 3, 0.6 / 3, 1 / 3] and read_json(path)["picture"] == "fig5_samples.png"
    write_result("cgps", "fig5_samples", check_parameters(GOOD), rows, claims, figure=draw(seen[0]))
    assert path.with_suffix(".png").read_bytes() == first  # the same picture, byte for byte


def test_pictures_of_official_data_are_not_written(folder):
    for profile, drawn in (("small", True), ("paper", False)):
        parameters = check_parameters({"profile": profile, "seeds": "0"})
        path = write_result("cgps", "fig4_cases", parameters, [{"query": 1, "rank_with_context": 1}], figure=Figure())
        assert path.with_suffix(".png").exists() == drawn == bool(read_json(path)["picture"])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PS_NB_RESULTS", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write"):
        write_result("cucps", "tab1_mining", check_parameters(GOOD), ROWS, CLAIMS)


def test_the_state_of_the_code(tmp_path, monkeypatch):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "00_ground").mkdir(parents=True, exist_ok=True)
    (tmp_path / "nbs" / "00_ground" / "01_core.ipynb").touch()
    (tmp_path / "settings.ini").touch()
    monkeypatch.chdir(tmp_path)
    assert repository() == tmp_path and code_state() == {"commit": None, "dirty": None}
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "new.json").touch()  # the result of another experiment is no change of the code
    assert len(code_state()["commit"]) == 40 and code_state()["dirty"] is False
    (tmp_path / "settings.ini").write_text("changed")
    assert code_state()["dirty"] is True and changed_files() == ["settings.ini"]


# ---------------------------------------------------------------- what the papers say


@pytest.mark.parametrize("key", KEYS)
def test_published_files_are_whole(key):
    paper = published(key)
    assert paper["key"] == key and paper["title"] and bool(paper["authors"]) == (key != "beyond")
    names = [item["id"] for item in paper["artefacts"]]
    assert len(set(names)) == len(names)
    for item in paper["artefacts"]:
        assert item["kind"] in ("table", "figure", "picture") and item["title"] and item["keys"], item["id"]
        assert (item["kind"] == "table") == item["id"].startswith("tab") or key == "beyond", item["id"]
        claims = [claim["id"] for claim in item["claims"]]
        assert len(set(claims)) == len(claims) and all(claim["text"].endswith(".") for claim in item["claims"])
        table = pd.DataFrame(item["rows"], columns=None if item["rows"] else item["keys"])
        assert not table.duplicated(item["keys"]).any() and table[item["keys"]].notna().all(axis=None), item["id"]
        known = {*item["keys"], *item["metrics"], "reported", "approximate"}
        assert set(table) <= known, (item["id"], set(table) - known)
        for metric in set(table) & set(item["metrics"]):
            if item["metrics"][metric] == "%":
                assert table[metric].dropna().between(0, 1).all(), (item["id"], metric)


def rows_of(key, artefact):
    item = published_artefact(key, artefact)
    return pd.DataFrame(item["rows"]).set_index(item["keys"])


def test_printed_numbers_agree_with_what_the_papers_derive_from_them():
    contexts = rows_of("cgps", "tab1_contexts")  # the paper prints every gain over the first row
    gains = contexts[["map", "top1"]] - contexts.iloc[0][["map", "top1"]]
    assert (gains.astype(float) * 100).round(1).values.tolist()[1:] == [
        [4.3, 4.8], [0.1, 0.3], [5.9, 6.1], [4.6, 5.0], [7.6, 7.1], [7.5, 7.4], [8.8, 8.5]]  # fmt: skip
    mining = rows_of("cucps", "tab1_mining") * 100
    assert (mining.loc[(True, True)] - mining.loc[(False, False)]).round(2).tolist() == [8.93, 5.50]
    components = rows_of("rsiam", "tab2_components")
    assert round((components["top1"].iloc[3] - components["top1"].iloc[2]) * 100, 2) == 3.96
    labelled = rows_of("rsiam", "tab1_statistics")
    assert (labelled["labelled"] + labelled["unlabelled"]).tolist() == [55260, 18048]
    statistics = rows_of("e2e", "tab1_statistics").loc["cuhk"]
    for metric in ("identities", "images"):
        counts = statistics[metric]
        assert counts["train"] + counts["test"] == counts["all"] == counts["street"] + counts["film"]


def test_claims_hold_for_the_papers_own_numbers():
    detectors = rows_of("e2e", "tab2_detectors_reid")["map"]
    assert detectors["joint", "joint"] > detectors["Deep", "IDNet"]
    assert (detectors["GT"] > detectors["Deep"]).all() and (detectors["Deep"] > detectors["ACF"]).all()
    assert len({tuple(detectors[name].sort_values().index) for name in ("ACF", "Deep", "GT")}) == 1
    subsets = rows_of("e2e", "tab3_subsets")
    assert (subsets.loc["occlusion"] < subsets.loc["all"]).all(axis=None)
    assert (subsets.loc[("low resolution", "joint")] < subsets.loc[("all", "joint")]).all(axis=None)
    for dataset in ("cuhk", "prw"):
        parts = rows_of("ctxg", "tab1_parts").loc[dataset]
        assert (parts.loc["whole"] > parts.loc[["upper", "middle", "lower"]].max()).all() and parts["top1"].idxmin() == "lower"
        assert increasing(rows_of("ctxg", "tab2_components").loc[dataset, "map"])["holds"]
        graphs = rows_of("ctxg", "tab5_graph_structure").loc[dataset]
        assert (graphs.loc["pairs"] > graphs.loc["siamese"]).all()
        combined = rows_of("cgps", "tab5_training_sets").xs(dataset, level="dataset")
        assert combined["map"].idxmax() == combined["top1"].idxmax() == "cuhk+prw"
        scales = rows_of("rsiam", "tab3_scales").xs(dataset, level="dataset")
        assert increasing(scales["map"])["holds"] and increasing(scales["top1"])["holds"]
    for artefact in ("tab3_cuhk", "tab4_prw"):
        table = rows_of("ctxg", artefact)["map"]
        assert table.idxmax() == "CTXG" and (table.filter(regex="DSIFT|BoW|LOMO") < table["OIM"]).all()
    two_step = rows_of("cgps", "tab3_two_step")
    assert two_step["map"].idxmax() == two_step["milliseconds"].idxmin() == "CGPS"
    assert increasing(rows_of("cgps", "tab4_backbones")["map"])["holds"]
    boxes = rows_of("cgps", "tab6_detector_boxes")["map"].unstack()
    assert (boxes.loc["GT"] > boxes.drop("GT")).all(axis=None)
    unsupervised = rows_of("cucps", "tab3_unsupervised").unstack("method")
    assert (unsupervised["map"].idxmax(axis=1) == "CUCPS").all() and (unsupervised["top1"].idxmax(axis=1) == "CUCPS").all()
    supervised = rows_of("cgps", "tab2_supervised")
    assert supervised.loc[("cuhk", "CGPS"), "map"] > supervised.loc[("cuhk", "OIM"), "map"]
    assert supervised.loc[("prw", "CGPS"), "map"] < supervised.loc[("prw", "OIM"), "map"]
    assert supervised.loc[("prw", "CGPS"), "top1"] > supervised.loc[("prw", "OIM"), "top1"]


# ---------------------------------------------------------------- the report


def test_the_committed_report_is_what_the_files_say(monkeypatch):
    monkeypatch.delenv("PS_NB_RESULTS", raising=False)
    committed = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert committed == report(ROOT / "results"), "results/README.md is stale: write it again with `ps-nb report`"


def test_links_of_the_committed_report_lead_somewhere():
    text = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    for target in {part.split(")")[0] for part in text.split("](")[1:]}:
        if target.startswith("#"):
            assert f"\n## {target[1:]}\n" in text
        else:
            assert (ROOT / "results" / target).is_file(), target


def test_profiles_have_columns_of_their_own(folder):
    for profile, value in (("smoke", 0.2), ("full", 0.4)):
        rows = [row | {"map": value, "map_std": 0.011, "seeds": 2} for row in ROWS]
        write_result("cucps", "tab1_mining", check_parameters({"profile": profile, "seeds": "0,1"}), rows,
                     CLAIMS | {"both_gain": verdict(profile == "full")})  # fmt: skip
    path = write_report()
    text = path.read_text()
    assert path == folder / "README.md" and write_report().read_text() == text
    section = text.split("### [tab1_mining]")[1].split("###")[0]
    assert "| hpm | hnm | mAP (%), published | mAP (%), smoke | mAP (%), full | top-1 (%), published |" in section
    assert "| no | no | 27.68 | 20.0 ± 1.1 | 40.0 ± 1.1 | 59.35 |" in section
    assert "| HNM and HPM each gain. | does not hold | not run | not run | holds | not run |" in section
    joint = "| The joint gain is larger than the sum of the two. "
    assert f"{joint}| not decided | not run | not run | not decided | not run |" in section
    assert "- **full**: 2 seeds, " in section and "[json](full/cucps/tab1_mining.json)" in section
    assert "### [tab1_mining](../nbs/experiments/cucps/tab1_mining.ipynb)" in text


@pytest.mark.parametrize("counts, said", [((1, 1, 1, 1), "1 seed,"), ((1, 1, 3, 3), "1 to 3 seeds,"), ((3, 3, 3, 3), "3 seeds,")])
def test_rows_may_stand_on_different_numbers_of_seeds(folder, counts, said):
    rows = [row | {"map": 0.2, "seeds": count} for row, count in zip(ROWS, counts, strict=True)]
    write_result("cucps", "tab1_mining", check_parameters({"profile": "small", "seeds": "0"}), rows, CLAIMS)
    assert f"- **small**: {said}" in write_report().read_text()


def test_a_foreign_file_among_the_results_is_named(folder):
    write_json(folder / "small" / "e2e" / "fig2_heights.json", {"rows": []})
    with pytest.raises(UserError, match=r"fig2_heights.json is not a result of fig2_heights"):
        report()


def test_rows_keep_the_papers_order_and_sweeps_are_sorted():
    contexts = published_artefact("cgps", "tab1_contexts")
    names = list(matched_rows(contexts, {"published": contexts["rows"]}))
    assert names == [tuple(row[key] for key in contexts["keys"]) for row in contexts["rows"]]
    sweep = {"keys": ["method", "size"], "metrics": {"map": "%"}, "rows": []}
    rows = [{"method": method, "size": size, "map": 0.5} for size in (100, 50) for method in ("b", "a")]
    assert list(matched_rows(sweep, {"small": rows})) == [("b", 50), ("b", 100), ("a", 50), ("a", 100)]
    curve = [{"method": "a", "size": size, "map": 0.5} for size in range(100)]
    assert value_table(sweep, {"small": {"rows": curve}}) == []  # too long for a table


def kept_means(result):
    "Key, metric and mean over queries and seeds of every search whose answers a result file keeps."
    keys = published_artefact(result["key"], result["artefact"])["keys"]
    kept = pd.DataFrame(result.get("searches", []))
    for key, rows in kept.groupby(keys) if len(kept) else ():
        for metric in {"map", "top1"} & set(kept):
            scored = [np.nanmean(np.array(answers[metric].split(), float)) for answers in rows["answers"]]
            yield key if isinstance(key, tuple) else (key,), metric, np.mean(scored)


def test_result_files_in_the_repository_are_results():
    for path in (ROOT / "results").glob("*/*/*.json"):
        result = json.loads(path.read_text())
        assert path.parts[-3:] == (result["profile"], result["key"], f"{result['artefact']}.json")
        assert result["commit"] and result["dirty"] is False, f"{path}: made with code that was not committed"
        means = {tuple(row[key] for key in published_artefact(result["key"], path.stem)["keys"]): row
                 for row in result["rows"]}
        for key, metric, value in kept_means(result):
            assert value == pytest.approx(means[key][metric], abs=1e-4), f"{path}: {key} is not the mean of its queries"
        assert path.with_suffix(".csv").is_file() and (not result["picture"] or (path.parent / result["picture"]).is_file())
