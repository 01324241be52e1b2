"""Figures say what they show, leave no global state, and refuse what they cannot draw."""

import dataclasses
import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

import measattn as ma
from measattn import plot, wasserstein
from measattn.wasserstein import ColumnGeneration


def cloud(n=12, d=2, seed=0):
    return ma.EmpiricalMeasure(np.random.default_rng(seed).normal(size=(n, d)))


def solved(draw, mu, nu, ax, **options):
    return draw(wasserstein.w1(mu, nu), mu, nu, ax, **options)


def closing():
    return wasserstein.w1(cloud(n=60), cloud(n=50, seed=1), solver=ColumnGeneration(neighbours=1))


DRAWINGS = {
    "measure d=1": lambda ax: plot.measure(cloud(d=1), ax),
    "measure d=2": lambda ax: plot.measure(cloud(), ax, label="law"),
    "measure d=5": lambda ax: plot.measure(cloud(d=5), ax),
    "law d=1": lambda ax: plot.law(cloud(d=1), cloud(d=1, seed=1), ax),
    "law d=2": lambda ax: plot.law(cloud(), cloud(seed=1), ax),
    "law d=5": lambda ax: plot.law(cloud(d=5), cloud(n=7, d=5), ax),
    "kernel": lambda ax: plot.kernel(ma.SoftmatchKernel(ma.DotProduct(), cloud()), cloud(5), ax),
    "weights": lambda ax: plot.weights(np.full((2, 3), 1 / 3), ax, columns=["a", "b", "c"]),
    "curve": lambda ax: plot.curve(
        [1, 10], [1.0, 0.1], ax, spread=[0.1, 0.01], bound={"E4": [2, 0.2]}
    ),
    "margins": lambda ax: plot.margins({"a": 0.5, "b": 0.0, "c": 2.0}, ax),
    "two sides": lambda ax: plot.two_sided([1.0, 2.0], [1.1, np.inf], ax=ax),
    "growth": lambda ax: plot.growth(
        [1, 4], {"a": ([1, 2], [1.5, 3]), "b": ([1, 1], None)}, ax, reference={"c": [1, 2]}
    ),
    "transport d=1": lambda ax: solved(plot.transport, cloud(d=1), cloud(n=5, d=1, seed=1), ax),
    "transport d=2": lambda ax: solved(plot.transport, cloud(), cloud(n=7, seed=1), ax),
    "transport d=5": lambda ax: solved(plot.transport, cloud(d=5), cloud(d=5, seed=1), ax),
    "potential d=1": lambda ax: solved(plot.potential, cloud(d=1), cloud(d=1, seed=1), ax),
    "potential d=2": lambda ax: solved(plot.potential, cloud(), cloud(n=7, seed=1), ax),
    "potential d=5": lambda ax: solved(plot.potential, cloud(d=5), cloud(d=5, seed=1), ax),
    "bracket": lambda ax: plot.bracket(closing(), ax, tol=1e-9),
    "errors": lambda ax: plot.errors_by_layer([[1e-15, 0.0], [1e-14]], 1e-12, ax),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_is_a_figure_with_labelled_axes(name, tmp_path):
    figure = DRAWINGS[name](None)
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert axes.get_xlabel()
    assert axes.get_ylabel() or name.startswith(("law d=1", "margins"))
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_goes_into_the_axes_that_it_is_given(name):
    figure = Figure()
    _, right = figure.subplots(1, 2)
    assert DRAWINGS[name](right) is figure
    assert right.has_data()
    assert not figure.axes[0].has_data()


def test_drawing_changes_no_setting_of_the_caller():
    before = dict(mpl.rcParams)
    plot.measure(cloud())
    assert dict(mpl.rcParams) == before


def test_the_area_of_a_dot_is_proportional_to_the_weight():
    mu = ma.weighted(np.eye(2), [0.75, 0.25])
    large, small = plot.measure(mu).axes[0].collections[0].get_sizes()
    assert large / small == pytest.approx(3, rel=1e-5)


def test_in_dimension_one_a_stem_is_as_high_as_its_weight():
    mu = ma.weighted([[0.0], [2.0]], [0.75, 0.25])
    axes = plot.measure(mu).axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([0.75, 0.25], rel=1e-5)
    assert axes.get_ylim()[1] > 0.75


def test_a_second_measure_on_the_same_axes_is_not_cut_off():
    figure = plot.measure(ma.EmpiricalMeasure([[0.0], [1.0], [2.0]]), label="flat")
    plot.measure(ma.dirac([1.0]), figure.axes[0], label="peak")
    plot.measure(ma.EmpiricalMeasure([[0.0], [1.0], [2.0]]), figure.axes[0], label="flat")
    assert figure.axes[0].get_ylim()[1] > 1.0


def test_above_dimension_two_the_axes_say_how_much_variance_they_show():
    points = np.random.default_rng(0).normal(size=(50, 4)) * [3.0, 2.0, 1e-3, 1e-3]
    axes = plot.measure(ma.EmpiricalMeasure(points)).axes[0]
    shares = [
        int(label.split("(")[1].split("%")[0]) for label in (axes.get_xlabel(), axes.get_ylabel())
    ]
    assert sum(shares) in (99, 100, 101)
    assert shares[0] > shares[1] > 10


def test_one_atom_and_coincident_atoms_are_drawn():
    plot.measure(ma.dirac(jnp.ones(5)))
    plot.measure(ma.EmpiricalMeasure(jnp.ones((3, 4))))


def test_arrows_go_from_each_atom_to_where_it_is_sent():
    mu, nu = cloud(), cloud(seed=1)
    arrows = plot.law(mu, nu).axes[0].collections[0]
    step = np.asarray(nu.points) - np.asarray(mu.points)
    assert np.column_stack([arrows.U, arrows.V]) == pytest.approx(step)


def test_tokens_are_drawn_by_their_states():
    tokens = ma.EmpiricalMeasure(ma.Token(jnp.arange(4.0), jnp.ones((4, 2))))
    assert plot.measure(tokens).axes[0].has_data()


def test_the_rows_of_a_kernel_are_its_heat_map():
    kernel = ma.SoftmatchKernel(ma.DotProduct(), cloud())
    shown = plot.kernel(kernel, cloud(5)).axes[0].images[0].get_array()
    assert shown.shape == (5, 12)
    assert np.asarray(shown).sum(axis=1) == pytest.approx(np.ones(5), rel=1e-5)


def test_the_fitted_slope_is_in_the_legend():
    n = np.array([1.0, 10.0, 100.0])
    axes = plot.curve(n, 3 * n**-0.5).axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "fitted slope −0.500"


def test_a_curve_that_is_no_power_is_drawn_without_a_slope():
    axes = plot.curve(np.arange(1.0, 9.0), 3 + np.sin(np.arange(8.0)), fit=False).axes[0]
    assert axes.get_xscale() == "linear"
    assert "slope" not in axes.get_legend().get_texts()[0].get_text()


def test_an_arc_joins_the_atoms_that_exchange_mass_and_is_as_wide_as_its_mass():
    mu = ma.EmpiricalMeasure([[0.0, 0.0], [0.0, 5.0]])
    nu = ma.weighted([[1.0, 0.0], [1.0, 5.0]], [3.0, 1.0])
    solution = wasserstein.w1(mu, nu)
    lines = plot.transport(solution, mu, nu).axes[0].collections[0]
    rows, cols, mass = solution.plan
    drawn = {tuple(map(tuple, line)): width for line, width in zip(
        lines.get_segments(), lines.get_linewidths(), strict=True)}  # fmt: skip
    assert len(drawn) == len(mass) == 3
    for i, j, share in zip(rows, cols, mass, strict=True):
        ends = tuple(map(tuple, np.stack([mu.points[i], nu.points[j]])))
        assert drawn[ends] / max(drawn.values()) == pytest.approx(share / mass.max())


def test_of_many_arcs_the_heaviest_are_drawn_and_the_title_says_so():
    mu = ma.weighted(np.random.default_rng(0).normal(size=(30, 2)), np.arange(1.0, 31.0))
    nu = ma.pushforward(lambda x: x + 9.0, mu)
    solution = wasserstein.w1(mu, nu)
    axes = plot.transport(solution, mu, nu, arcs=10).axes[0]
    assert len(axes.collections[0].get_segments()) == 10
    share = np.sort(solution.plan.mass)[-10:].sum()
    assert f"heaviest 10 of {len(solution.plan.mass)} arcs, {share:.0%}" in axes.get_title("left")
    assert plot.transport(solution, mu, nu).axes[0].get_title("left") == ""


def test_no_arcs_are_drawn_if_none_are_asked_for():
    mu, nu = cloud(), cloud(seed=1)
    axes = plot.transport(wasserstein.w1(mu, nu), mu, nu, arcs=0).axes[0]
    assert len(axes.collections) == 2  # the two clouds
    assert "0 of 12 arcs" in axes.get_title("left")


def test_on_the_line_the_area_between_the_quantile_functions_is_the_distance():
    mu = ma.weighted([[0.0], [2.0], [1.0]], [1.0, 2.0, 1.0])
    nu = ma.weighted([[3.0], [-1.0]], [0.3, 0.7])
    solution = wasserstein.w1(mu, nu)
    low, high = plot.transport(solution, mu, nu).axes[0].lines
    edges = low.get_xdata()
    assert edges == pytest.approx(high.get_xdata())
    area = np.abs(low.get_ydata() - high.get_ydata())[:-1] @ np.diff(edges)
    assert area == pytest.approx(solution.value, rel=1e-6)


def test_the_drawn_potential_is_one_function_whose_mean_difference_is_the_distance():
    mu, nu = cloud(), cloud(n=7, seed=1)
    solution = wasserstein.w1(mu, nu)
    source, target = plot.potential(solution, mu, nu).axes[0].collections[:2]
    f, g = (np.asarray(dots.get_array()) for dots in (source, target))
    assert f.mean() - g.mean() == pytest.approx(solution.value, rel=1e-5)
    assert f.mean() + g.mean() == pytest.approx(0, abs=1e-6)
    far = np.linalg.norm(np.asarray(mu.points)[:, None] - np.asarray(nu.points)[None], axis=2)
    assert (f[:, None] - g[None] <= far + 1e-6).all()


def test_on_the_line_the_potential_of_the_source_is_drawn_as_discs_and_of_the_target_as_diamonds():
    mu, nu = cloud(d=1), cloud(d=1, seed=1)
    source, target = plot.potential(wasserstein.w1(mu, nu), mu, nu).axes[0].collections
    disc, diamond = (dots.get_paths()[0] for dots in (source, target))
    assert len(diamond.vertices) < 6 < len(disc.vertices)


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_axis_of_a_bracket_counts_its_rounds_and_its_legend_covers_no_curve(rounds):
    solution = closing()
    figure = plot.bracket(dataclasses.replace(solution, trace=solution.trace[:rounds]))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    shown = [tick for tick in axes.get_xticks() if np.prod(axes.get_xlim() - tick) < 0]
    assert shown == list(range(1, rounds + 1))
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_the_drawn_bracket_falls_and_ends_within_what_was_asked_for():
    solution = closing()
    assert len(solution.trace) > 1
    gap, above, below = (line.get_ydata() for line in plot.bracket(solution).axes[0].lines)
    assert (np.diff(gap) <= 0).all()
    assert (np.diff(above) <= 0).all()
    assert (np.diff(below) <= 0).all()
    assert gap[-1] <= 1e-9


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: solved(
                lambda s, *_: plot.transport(s, cloud(3), cloud()), cloud(), cloud(seed=1), None
            ),
            "pass the measures",
        ),
        (
            lambda: solved(
                lambda s, *_: plot.potential(s, cloud(15), cloud()), cloud(), cloud(seed=1), None
            ),
            "mu must have the 12 atoms .*got 15: pass the measures",
        ),
        (
            lambda: solved(plot.transport, cloud(), cloud(seed=1), None, arcs=-1),
            "arcs must be a whole number of at least 0, got -1",
        ),
        (
            lambda: solved(lambda s, *_: plot.bracket(s), cloud(), cloud(seed=1), None),
            "ColumnGeneration",
        ),
        *(
            (
                lambda tol=tol: plot.bracket(closing(), tol=tol),
                f"tol must be positive and finite, such as 1e-9, got {tol}",
            )
            for tol in (-1.0, 0.0, np.nan, np.inf)
        ),
        (
            lambda: solved(
                lambda s, *_: plot.transport(s, cloud(), cloud(seed=2)),
                cloud(),
                cloud(seed=1),
                None,
            ),
            "nu must be the measure that the solution was computed for.*pass the measures",
        ),
        (
            lambda: solved(
                lambda s, *_: plot.potential(s, cloud(seed=2), cloud(seed=1)),
                cloud(),
                cloud(seed=1),
                None,
            ),
            "mu must be the measure that the solution was computed for.*pass the measures",
        ),
        (lambda: plot.law(cloud(), cloud(d=3)), "dimension"),
        (lambda: plot.weights(np.ones(3)), "two axes"),
        (lambda: plot.weights(np.ones((2, 2)), rows=["a"]), "rows must name all 2"),
        (lambda: plot.curve([1, 2], [1, -1]), "positive"),
        (lambda: plot.curve([1, 1], [1, 2]), "two"),
        (lambda: plot.errors_by_layer([]), "at least one"),
        (lambda: plot.two_sided([1.0], [0.5]), "at least attained"),
        (lambda: plot.two_sided([1.0], [1.0, 2.0]), "equally long"),
        (lambda: plot.growth([2, 1], {"a": ([1, 1], None)}), "in order"),
        (lambda: plot.growth([1, 2], {"a": ([1, 0], None)}), "positive"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("ax", [3, np.array([None])])
def test_what_is_no_axes_is_refused_by_every_figure(name, ax):
    with pytest.raises(ValueError, match=f"ax must be the axes .*got a {type(ax).__name__}: leave"):
        DRAWINGS[name](ax)


def test_the_library_is_imported_without_matplotlib_and_says_how_to_get_it():
    program = """
import sys
sys.modules["matplotlib"] = None
import measattn as ma
from measattn import plot, wasserstein
from measattn.wasserstein import ColumnGeneration
try:
    plot.measure(ma.dirac([0.0]))
except ModuleNotFoundError as error:
    assert "measattn[repro]" in str(error), error
else:
    raise SystemExit("drew without matplotlib")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    program = "import sys, measattn.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_figures_of_transport_refuse_what_is_no_solution():
    mu = ma.EmpiricalMeasure(np.eye(2))
    with pytest.raises(ValueError, match="solution must be one with a plan"):
        ma.plot.transport(None, mu, mu)
    with pytest.raises(ValueError, match="solution must be one with a trace"):
        ma.plot.bracket(ma.wasserstein.w_inf(mu, mu))


WITHOUT_TYPES_CHECKED = """
import numpy as np
import measattn as ma
from measattn import plot, wasserstein
mu, points = ma.EmpiricalMeasure(np.eye(2)), np.eye(2)
solution, longest = wasserstein.w1(mu, mu), wasserstein.w_inf(mu, mu)
for draw, words in (
    (lambda: plot.measure(points), "mu must be an EmpiricalMeasure, got a ndarray: wrap points"),
    (lambda: plot.law(mu, points), "nu must be an EmpiricalMeasure, got a ndarray: wrap points"),
    (lambda: plot.transport(solution, mu, points), "nu must be an EmpiricalMeasure, got a ndarray"),
    (lambda: plot.potential(longest, mu, mu), "one with potentials, as wasserstein.w1 and wp"),
    (lambda: plot.law(mu, mu, labels=("a",)), "labels must be two, such as"),
    (lambda: plot.transport(solution, mu, mu, labels="ab"), "labels must be two, such as"),
):
    try:
        draw()
    except ValueError as error:
        assert words in str(error), error
    else:
        raise SystemExit(f"drawn, instead of: {words}")
"""


def test_what_type_checkers_would_refuse_is_refused_without_them_too():
    subprocess.run([sys.executable, "-c", WITHOUT_TYPES_CHECKED], check=True)
