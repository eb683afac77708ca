"Edge cases of painting, of the camera and of rendered objects."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps_nb.core import UserError, numpy_generator
from ps_nb.twin.objects import render_objects
from ps_nb.twin.painting import PATTERNS, Exposure, Fabric, clutter, composite, ellipse, expose, light_figure, paint, pattern_mask


@settings(max_examples=60, deadline=None)
@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 40), st.integers(1, 40))
def test_composite_agrees_with_a_loop(left, top, width, height):
    generator = numpy_generator(0, left, top, width, height)
    image = generator.integers(0, 256, (24, 32, 3), np.uint8)
    alpha = generator.integers(0, 256, (height, width, 1), np.uint8)
    layer = np.concatenate([(alpha * generator.uniform(0, 1, (height, width, 3))).astype(np.uint8), alpha], axis=2)
    expected = image.astype(float)
    for row in range(height):
        for column in range(width):
            if 0 <= row + top < 24 and 0 <= column + left < 32:
                under = expected[row + top, column + left]
                expected[row + top, column + left] = layer[row, column, :3] + (1 - layer[row, column, 3] / 255) * under
    composite(image, layer, left, top)
    assert np.abs(image - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("pattern", PATTERNS)
def test_paint_cuts_off_what_is_outside(pattern):
    layer = np.zeros((20, 20, 4), np.uint8)
    paint(layer, ellipse(0, 0, 30, 6), Fabric((10, 20, 30), (40, 50, 60), pattern, 0.2), 20)
    assert (layer[:5, :, 3] == 255).all() and (layer[9:, :, 3] == 0).all()
    before = layer.copy()
    paint(layer, ellipse(-90, -90, 3, 3), Fabric((9, 9, 9), (8, 8, 8), pattern, 0.2), 20)
    assert np.array_equal(layer, before)


def test_unknown_pattern_is_named():
    with pytest.raises(UserError, match="tartan"):
        pattern_mask("tartan", 4, 4, 2)


def test_light_keeps_colour_below_coverage():
    layer = np.zeros((40, 20, 4), np.uint8)
    paint(layer, ellipse(10, 20, 8, 18), Fabric((250, 250, 250)), 40)
    coverage = layer[:, :, 3].copy()
    light_figure(layer, numpy_generator(1), side=0.5, folds=0.3)
    assert np.array_equal(layer[:, :, 3], coverage) and (layer[:, :, :3] <= coverage[:, :, None]).all()


def test_expose_leaves_its_input_alone():
    image = clutter(numpy_generator(2), 30, 40)
    copy = image.copy()
    seen = expose(image, Exposure(1.4, 0.7, (1.3, 1, 0.8), 1.0, 8.0), numpy_generator(3))
    assert np.array_equal(image, copy) and seen.shape == image.shape and seen.dtype == np.uint8


@pytest.mark.parametrize("size", [(64, 32), (33, 17), (8, 8)])
def test_objects_have_any_size(size):
    images, labels = render_objects(5, 3, *size, seed=4)
    assert images.shape == (15, 3, *size) and images.dtype == np.uint8
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert len(np.unique(images.reshape(15, -1), axis=0)) == 15
    other, _ = render_objects(5, 3, *size, seed=5)
    assert not np.array_equal(images, other)


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0), (1, 1, 4, 48), (1, 1, 96, 0)])
def test_objects_refuse_nothing_to_render(arguments):
    with pytest.raises(UserError, match="cannot render"):
        render_objects(*arguments)
