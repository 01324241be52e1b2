"""Figures of paths: what is drawn is what was recorded."""

import numpy as np
import pytest

import measattn as ma
from measattn import dynamics, plot

pytestmark = pytest.mark.float64

CLOUD = ma.EmpiricalMeasure(np.random.default_rng(0).normal(size=(12, 2)))
LAYER = ma.SelfAttention(ma.DotProduct(0.5), 0.8 * np.eye(2))


def lines(figure):
    """The data of all lines with a name, by panel and name."""
    found = {}
    for axes in figure.axes:
        for line in axes.lines:
            found[axes.get_title(loc="left"), line.get_label()] = line.get_data()
    return found


def test_a_path_is_drawn_as_it_was_recorded():
    path = dynamics.iterate(LAYER, CLOUD, 9, reference=CLOUD)
    figure = plot.trajectory(path)
    figure.draw_without_rendering()
    drawn = lines(figure)
    steps = np.arange(10)
    expected = {
        ("distance W1", "of a step"): (steps[1:], path.w1),
        ("size of the cloud", "diameter"): (steps, path.diameter),
        ("size of the cloud", "radius"): (steps, path.radius),
        ("effective number of", "clusters"): (steps, path.clusters),
        ("effective number of", "dimensions"): (steps, path.rank),
    }
    for key, data in expected.items():
        np.testing.assert_allclose(drawn[key], [data[0], np.where(data[1] > 0, data[1], np.nan)])
    _, away = drawn["distance W1", "to the reference"]
    assert np.isnan(away[0])  # of 0 there is no logarithm
    np.testing.assert_allclose(away[1:], path.reference.w1[1:])
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear", "linear"]


def test_what_was_not_recorded_has_no_panel():
    assert len(plot.trajectory(dynamics.iterate(LAYER, CLOUD, 3, observe=False)).axes) == 1
    assert len(plot.trajectory(dynamics.iterate(LAYER, CLOUD, 3, distances=False)).axes) == 3
    with pytest.raises(ValueError, match="observe=True"):
        plot.trajectory(dynamics.iterate(LAYER, CLOUD, 3, distances=False, observe=False))
    with pytest.raises(ValueError, match="must have steps"):
        plot.trajectory(dynamics.iterate(LAYER, CLOUD, 0))


def test_a_path_that_stands_still_is_drawn_on_a_linear_axis():
    still = dynamics.iterate(
        ma.SelfAttention(ma.DotProduct(1.0)), ma.EmpiricalMeasure(np.ones((3, 2))), 4
    )
    figure = plot.trajectory(still)
    figure.draw_without_rendering()
    assert figure.axes[0].get_yscale() == "linear"
    np.testing.assert_array_equal(lines(figure)["distance W1", "of a step"][1], 0)


def test_a_curve_without_fit_may_begin_at_zero_and_fall_to_it():
    y = np.array([4.0, 1.0, 1e-9, 0.0, 0.0])
    axes = plot.curve(range(5), y, fit=False).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [4.0, 1.0, 1e-9, np.nan, np.nan])
    for bad in (np.zeros(5), -y, np.full(5, np.nan)):
        with pytest.raises(ValueError, match="somewhere positive"):
            plot.curve(range(5), bad, fit=False)
    with pytest.raises(ValueError, match="with fit=False"):
        plot.curve(range(5), y)


def test_arrows_into_one_point_have_no_heads():
    def heads(nu):
        (arrows,) = [c for c in plot.law(CLOUD, nu).axes[0].collections if hasattr(c, "headlength")]
        return arrows.headlength

    point = ma.EmpiricalMeasure(0.01 * np.asarray(CLOUD.points))
    assert heads(point) == 0
    assert heads(CLOUD @ LAYER) > 0


def test_steps_of_a_path_are_asked_for_by_numbers_that_exist():
    path = dynamics.iterate(LAYER, CLOUD, 3, keep=[1])
    assert len(path) == len(list(path)) == 3  # the start and the end are always kept
    assert path[-1] is path[3]
    with pytest.raises(KeyError, match=r"pass keep=\[2\]"):
        path[2]
    with pytest.raises(IndexError, match="has steps 0 to 3"):
        path[9]
    with pytest.raises(TypeError, match="a step is a whole number"):
        path[0:2]
    with pytest.raises(ValueError, match="it has no steps"):
        dynamics.iterate(LAYER, CLOUD, 0).rate()
