"Figures of odd tables, and figures that stay the same."
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from PIL import Image

from ps_nb.core import UserError
from ps_nb.evaluation.metrics import average_precision, precision_recall
from ps_nb.figures.drawing import RIGHT, WRONG, png_bytes, save_figure, sighting
from ps_nb.figures.plots import (
    GalleryRow,
    ScenePanel,
    curves,
    histograms,
    precision_recall_curves,
    ranked_gallery,
    scene_grid,
    shares,
    staircase,
    training_curves,
    with_spread,
)
from ps_nb.reproduction.results import over_seeds

PERCENT = {"map": "%", "top1": "%"}


def sweep(methods=("OIM", "BoW"), values=(50, 100, 500), seeds=3):
    draw = np.random.default_rng(0)
    return pd.DataFrame([dict(method=method, gallery_size=value, seed=seed, map=draw.random(), top1=draw.random(), people=40)
                         for method in methods for value in values for seed in range(seeds)])


def noise(seed=0, height=60, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def person(seed, correct=None):
    return sighting(noise(seed), [10, 5, 30, 55], str(seed), correct)


EVERY = {
    "curves": lambda: curves(sweep(), "gallery_size", PERCENT, by=["method"], logarithmic="x"),
    "reference": lambda: curves(sweep(), "gallery_size", {"map": ""}, by=["method"], reference="people", logarithmic="xy"),
    "together": lambda: curves(sweep(["OIM"]), "gallery_size", PERCENT | {"people": ""}),
    "precision_recall": lambda: precision_recall_curves(
        pd.DataFrame(dict(detector="Deep", recall=[0.2, 0.5, 0.9], precision=[1, 0.8, 0.6])), ["detector"]),
    "training": lambda: training_curves([dict(epoch=e, loss=1 / (e + 1), clusters=40 - e) for e in range(4)], {"clusters": ""}),
    "histograms": lambda: histograms(shares({"a": np.arange(90.0), "b": np.arange(40.0)}, range(0, 101, 10))),
    "scenes": lambda: scene_grid([ScenePanel(noise(seed), [[5, 5, 20, 50]], labels=["p1"], title="s") for seed in range(4)]),
    "gallery": lambda: ranked_gallery([GalleryRow("a", person(0), [person(1, True), person(2, False)])]),
}


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_is_the_same_bytes_and_small(name, tmp_path):
    for file in ("first.png", "second.png"):
        save_figure(EVERY[name](), tmp_path / file)
    content = (tmp_path / "first.png").read_bytes()
    assert content == (tmp_path / "second.png").read_bytes() and len(content) < 100_000
    image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert image.min() < 128 < image.max()  # something was drawn


def test_the_same_figure_is_drawn_from_its_csv(tmp_path):
    for number, (table, draw) in enumerate([
        (sweep(), lambda table: curves(table, "gallery_size", PERCENT, ["method"])),
        (shares({"a": np.arange(90.0)}, range(0, 101, 10)), histograms),
    ]):
        table.to_csv(tmp_path / f"{number}.csv", index=False)
        assert png_bytes(draw(table), 60) == png_bytes(draw(pd.read_csv(tmp_path / f"{number}.csv")), 60)


def test_rows_of_seeds_and_their_averages_draw_the_same_line():
    table = sweep()
    averaged = over_seeds(table, ["method", "gallery_size"])
    for first, second in zip(curves(table, "gallery_size", PERCENT, ["method"]).axes,
                             curves(averaged, "gallery_size", PERCENT, ["method"]).axes):
        for line, other in zip(first.lines, second.lines):
            assert np.allclose(line.get_xydata(), other.get_xydata())
        for band, other in zip(first.collections, second.collections):
            assert np.allclose(band.get_paths()[0].vertices, other.get_paths()[0].vertices)


def test_the_order_of_rows_decides_the_order_of_names_but_not_the_lines():
    table = sweep()
    figure = curves(table.iloc[::-1], "gallery_size", {"map": "%"}, ["method"])
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert list(lines) == ["BoW", "OIM"]
    for line in curves(table, "gallery_size", {"map": "%"}, ["method"]).axes[0].lines:
        assert np.allclose(lines[line.get_label()], line.get_xydata())


def test_a_metric_measured_now_and_then_has_a_line_all_the_same():
    table = pd.DataFrame(dict(iteration=range(100), loss=np.linspace(4, 1, 100), map=np.nan))
    table.loc[[20, 60, 99], "map"] = [0.2, 0.5, 0.6]
    figure = curves(table, "iteration", {"loss": "", "map": "%"})
    assert np.allclose(figure.axes[1].lines[0].get_xydata(), [[20, 20], [60, 50], [99, 60]])


def test_two_keys_name_one_line():
    table = pd.DataFrame([dict(detector=detector, method=method, recall=recall, top1=0.5)
                          for detector in "AB" for method in "xy" for recall in (0.4, 0.6)])
    figure = curves(table, "recall", {"top1": "%"}, ["detector", "method"])
    assert [line.get_label() for line in figure.axes[0].lines] == ["A · x", "A · y", "B · x", "B · y"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A · x", "A · y", "B · x", "B · y"]


@pytest.mark.parametrize("draw", [
    lambda table: curves(table, "gallery_size", {"mAP": "%"}),
    lambda table: curves(table, "mAP", PERCENT),
    lambda table: curves(table, "gallery_size", PERCENT, by=["mAP"]),
    lambda table: curves(table, "gallery_size", PERCENT, reference="mAP"),
    lambda table: histograms(table, x="mAP"),
])
def test_a_missing_column_is_named(draw):
    with pytest.raises(UserError, match="'(mAP|people)'") as caught:
        draw(sweep().drop(columns="people"))
    assert "gallery_size" in str(caught.value)


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, np.inf]])
def test_a_histogram_of_nothing_is_refused(values):
    with pytest.raises(UserError, match="group 'tall'"):
        shares({"tall": np.array(values)}, [0, 1, 2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
       st.lists(st.integers(-50, 50), min_size=2, max_size=9, unique=True))
def test_shares_sum_to_one_and_count_everybody(values, edges):
    edges = sorted(edges)
    table = shares({"all": np.array(values)}, edges)
    assert np.isclose(table["share"].sum(), 1) and len(table) == len(edges) - 1
    below = np.mean(np.array(values) < edges[1]) if len(edges) > 2 else 1
    assert np.isclose(table["share"].iloc[0], below)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 5))
def test_the_area_of_a_staircase_is_the_average_precision(seed, count, missed):
    draw = np.random.default_rng(seed)
    hits, scores = draw.random(count) < 0.5, draw.integers(0, 12, count) / 12
    if not hits.any():
        return
    precision, recall, _ = precision_recall(scores, hits, int(hits.sum()) + missed)
    steps = staircase(precision, recall)
    area = np.sum(np.diff(np.r_[0, steps["recall"]]) * steps["precision"])
    assert np.isclose(area, average_precision(scores, hits, int(hits.sum()) + missed)) and steps["recall"].is_unique


def test_spread_of_one_seed_is_nothing_and_of_two_is_theirs():
    table = pd.DataFrame(dict(x=[1, 1, 2], map=[0.2, 0.4, 0.5]))
    spread = with_spread(table, ["x"], "map")
    assert np.allclose(spread, [[1, 0.3, np.std([0.2, 0.4], ddof=1)], [2, 0.5, 0]])


def test_frames_say_right_and_wrong():
    figure = ranked_gallery([GalleryRow("$x^{", person(0), [person(1, True), person(2, False)]),
                             GalleryRow("short", person(3), [])])
    frames = [to_hex(axis.spines["left"].get_edgecolor()) for axis in figure.axes[1:3]]
    assert frames == [RIGHT, WRONG]
    png_bytes(figure, 40)


def test_rows_without_a_query_begin_with_people():
    figure = ranked_gallery([GalleryRow("cluster", None, [person(1), person(2)])])
    assert [axis.get_title() for axis in figure.axes] == ["1", "2"]
    for attempt in (lambda: ranked_gallery([]), lambda: ranked_gallery([GalleryRow("", None, [])]), lambda: scene_grid([])):
        with pytest.raises(UserError, match="needs a"):
            attempt()


def test_scenes_of_any_shape_and_number_fit():
    for count in (1, 2, 7):
        figure = scene_grid([ScenePanel(noise(seed, 40 + 30 * seed, 90), title="$") for seed in range(count)], columns=3)
        assert len(figure.axes) == count
        png_bytes(figure, 40)
