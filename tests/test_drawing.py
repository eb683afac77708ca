"Edge cases of pictures."
import io

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ps_nb.core import UserError
from ps_nb.figures.drawing import (
    PALETTE,
    PaperFigure,
    paper_style,
    png_bytes,
    ranked_people,
    save_figure,
    shortened,
    show_scene,
    sighting,
    small_png,
)


def noise(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_style_ends_with_an_error_too():
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), paper_style():
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before
    assert len(set(PALETTE)) == 10


def test_style_does_not_depend_on_the_users_settings():
    def drawn():
        with paper_style():
            figure = PaperFigure(figsize=(2, 2))
            figure.add_subplot().plot([1, 2])
        return png_bytes(figure, 60)

    plain = drawn()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "lines.linewidth": 9, "figure.facecolor": "black",
                                "savefig.facecolor": "red", "axes.prop_cycle": matplotlib.cycler(color=["k"]),
                                "savefig.bbox": "tight", "savefig.transparent": True}):
        assert drawn() == plain


@pytest.mark.parametrize("inches", [(3, 2), (7, 5)])
def test_files_stay_small(tmp_path, inches):
    figure = PaperFigure(figsize=inches)
    figure.add_axes([0, 0, 1, 1]).imshow(noise(300, 400))
    save_figure(figure, tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size <= 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["noise.png"]


def test_a_figure_too_large_to_be_small_is_written_all_the_same():
    figure = PaperFigure(figsize=(14, 10))
    figure.add_axes([0, 0, 1, 1]).imshow(noise(600, 800))
    assert Image.open(io.BytesIO(small_png(figure, dpi=60))).size == (560, 400)  # 40 dots an inch, and no fewer


def test_a_small_figure_keeps_its_size_and_colours():
    figure = PaperFigure(figsize=(3, 2))
    figure.add_subplot().plot([1, 2])
    image = Image.open(io.BytesIO(small_png(figure, dpi=100)))
    assert image.size == (300, 200) and image.mode in ("RGB", "RGBA")


def test_other_formats_and_places_are_refused(tmp_path):
    figure = PaperFigure(figsize=(1, 1))
    with pytest.raises(UserError, match="ends in .png"):
        save_figure(figure, tmp_path / "figure.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_figure(figure, tmp_path / "file" / "figure.png")


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-30, 110, width=32)] * 4), st.integers(1, 90), st.integers(1, 90))
def test_crops_are_inside_and_hold_the_box(box, height, width):
    image = noise(height, width)
    cut = np.clip(box, 0, [width, height, width, height])
    try:
        person = sighting(image, box)
    except UserError:
        assert np.floor(max(box[0], 0)) >= np.ceil(min(box[2], width)) or np.floor(max(box[1], 0)) >= np.ceil(min(box[3], height))
        return
    left, top = np.floor(np.maximum(box[:2], 0)).astype(int)
    assert np.array_equal(person.crop, image[top : top + person.crop.shape[0], left : left + person.crop.shape[1]])
    assert person.crop.shape[1] >= cut[2] - cut[0] and person.crop.shape[0] >= cut[3] - cut[1]


@pytest.mark.parametrize("box", [[np.nan, 0, 5, 5], [0, 0, np.inf, 5], [90, 0, 95, 5], [10, 10, 10, 20], [20, 10, 10, 20]])
def test_boxes_without_a_person_are_refused(box):
    with pytest.raises(UserError, match="box"):
        sighting(noise(), box)


def test_large_scenes_shrink_and_small_ones_do_not_grow():
    assert sighting(noise(60, 80), [0, 0, 9, 9]).scene.shape == (60, 80, 3)
    tall = sighting(noise(2000, 100), [50, 1000, 100, 2000])
    assert tall.scene.shape == (480, 24, 3) and tall.box.tolist() == [12, 240, 24, 480]


@pytest.mark.parametrize("count", [0, 1, 5, 6, 12])
def test_ranked_people_of_every_length(count):
    people = [sighting(noise(seed=seed), [10, 5, 30, 55], str(seed), (None, True, False)[seed % 3]) for seed in range(count)]
    figure = ranked_people(sighting(noise(), [0, 0, 20, 50], "query"), people)
    png_bytes(figure, 40)
    assert len(figure.axes) == 2 + max(1, 2 * count)


def test_names_are_never_read_as_formulas():
    person = sighting(noise(), [10, 5, 30, 55], r"$\frac{1$ & _^{}.jpg")
    figure = ranked_people(person, [person])
    show_scene(figure.axes[0], noise(), [[1, 1, 9, 9]], labels=["$$$"])
    png_bytes(figure, 40)


@given(st.text(max_size=60), st.integers(3, 40))
def test_shortened_keeps_both_ends(text, length):
    short = shortened(text, length)
    assert len(short) == min(len(text), length)
    if len(text) > length:
        front, back = short[: (length - 1) // 2], short[(length - 1) // 2 + 1 :]
        assert text.startswith(front) and text.endswith(back) and len(back) - len(front) in (0, 1)
