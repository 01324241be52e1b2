"""Bars: what runs report reaches them, and nothing of them is left."""

import sys

import jax
import numpy as np
import pytest

import measattn as ma
from measattn import dynamics, lipschitz, wasserstein
from measattn.progress import _read

pytestmark = pytest.mark.float64


def seen(watch):
    """The bar's function, and the calls that it gets."""
    calls = []

    def both(*reported):
        calls.append(_read(reported, len(calls) + 1))
        watch(*reported)

    return both, calls


def test_all_runs_that_can_be_watched_fit_the_bar(capfd):
    layer, rng = ma.SelfAttention(ma.DotProduct(0.3), 0.5 * np.eye(2)), np.random.default_rng(0)
    mu, nu = (ma.EmpiricalMeasure(rng.normal(size=(300, 2))) for _ in range(2))
    ball = lipschitz.Ball(1.0)
    runs = {
        "search": lambda watch: lipschitz.search(
            layer, ball, key=jax.random.key(0), starts=4, steps=20, watch=watch
        ),
        "iterate": lambda watch: dynamics.iterate(layer, mu, 12, distances=False, watch=watch),
        "fixed point": lambda watch: dynamics.fixed_point(layer, mu, 1e-6, watch=watch),
        "transport": lambda watch: wasserstein.w1(
            mu, nu, solver=wasserstein.ColumnGeneration(), watch=watch
        ),
        "bottleneck": lambda watch: wasserstein.w_inf(mu, nu, watch=watch),
    }
    for name, run in runs.items():
        with ma.progress(name) as bar:
            watch, calls = seen(bar)
            run(watch)
        assert calls, name
        steps = [step for step, _, _ in calls]
        assert steps == sorted(steps)
        known = calls[-1][1]
        assert known is None or steps[-1] <= known
    assert calls[-1][2].startswith("[")
    assert capfd.readouterr().err.count("\n") <= 4 * len(runs)


def test_a_bar_ends_with_an_error_inside():
    with pytest.raises(ZeroDivisionError), ma.progress("fails") as watch:
        watch(1, 2, 1 / 0)
    with ma.progress("goes on") as watch:
        watch(1, 2, 0.5)


def test_without_rich_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"), ma.progress():
        pass
