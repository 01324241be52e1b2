"""Axes and legends that can be read, however wide the range and however many the curves."""

import numpy as np
import pytest

from measattn import plot


def written(axis):
    """The labels of an axis that are seen, from below."""
    axis.axes.get_figure(root=True).draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    seen = sorted((t.get_loc(), t.label1.get_text()) for t in ticks)
    return [text for place, text in seen if text and low <= place <= high]


@pytest.mark.parametrize(
    ("ends", "labels"),
    [
        ((0.41, 0.49), 3),
        ((1.0, 30.0), 4),
        ((3e-5, 4e5), 4),
        ((1e-30, 1e20), 4),
    ],
)
def test_a_logarithmic_axis_is_labelled_over_any_range_in_one_way(ends, labels):
    axes = plot.growth([1, 2, 3], {"a": (np.geomspace(*ends, 3), None)}).axes[0]
    found = written(axes.yaxis)
    assert labels <= len(found) <= 12
    assert len({text.startswith("$10^") for text in found}) == 1
    if ends[1] < 1e4:
        assert all(float(text) > 0 for text in found)


def test_a_bound_has_its_name_in_the_legend_and_the_curve_its_dots():
    proved = {"B3": [2.0, 4.0], "mean-field": [3.0, 9.0]}
    axes = plot.curve([1, 2], [1.0, 2.0], bound=proved, fit=False, names=("x", "attained")).axes[0]
    texts = {text.get_text() for text in axes.get_legend().get_texts()}
    assert texts == {"B3", "mean-field", "attained"}
    assert axes.lines[0].get_marker() == "o"


def test_many_bars_are_no_wider_than_a_page_and_what_has_no_bound_says_so():
    low = np.geomspace(0.1, 1e3, 144)
    high = np.where(np.arange(144) == 7, np.inf, 1.1 * low)
    figure = plot.two_sided(low, high, log=True)
    assert figure.get_size_inches()[0] <= 12
    axes = figure.axes[0]
    assert len(axes.get_xticks()) <= 36
    assert "no upper end" in {text.get_text() for text in axes.get_legend().get_texts()}
    assert len(written(axes.yaxis)) >= 4
    with pytest.raises(ValueError, match="positive to be drawn with log=True"):
        plot.two_sided([0.0], [1.0], log=True)


def test_curves_of_one_colour_have_different_marks_and_many_their_legend_beside_them():
    figure = plot.growth([1, 2], {str(k): ([k + 1, k + 2], None) for k in range(12)})
    axes = figure.axes[0]
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 12
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1
