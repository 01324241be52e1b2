"""Brackets of Lipschitz constants of attention: how near the two ends come, and what never crosses.

Every row is a number that the theory fixes or that a search attains; there is no peer to time.

Run: ``python benchmarks/lipschitz.py [case ...]``
"""

import math
import time
from collections.abc import Iterator

import jax
import numpy as np
from report import Row, run_cases

import measattn as ma
from measattn.lipschitz import Ball, bound, bracket, search

RADII = (0.5, 1.0, 1.5, 2.0)
KEY = jax.random.key(0)


def repelling() -> Iterator[Row]:
    """Upper over lower on balls for V = I, A = -I, p = 1."""
    layer = ma.SelfAttention(ma.DotProduct(-1.0))
    for d in (1, 2, 8):
        for radius, required in zip(RADII, (1.12, 1.05, 1.01, 1.001), strict=True):
            start = time.perf_counter()
            found = bracket(layer, Ball(radius), key=KEY, dimension=d)
            seconds = time.perf_counter() - start
            note = (
                f"[{found.lower:.6g}, {found.upper:.6g}] by {found.bound.theorem}, {seconds:.0f} s"
            )
            ratio = found.upper / found.lower
            yield Row(f"d = {d}, R = {radius}", ratio, note, at_most=required)


def attracting() -> Iterator[Row]:
    """Both ends on balls for V = I, A = I, p = 1."""
    layer = ma.SelfAttention(ma.DotProduct(1.0))
    lowest, highest = (1.2527, 2.1649, 3.9312, 6.6585), (1.53, 3.41, 7.57, 16.71)
    for d in (1, 2):
        for radius, low, high in zip(RADII, lowest, highest, strict=True):
            found = bracket(layer, Ball(radius), key=KEY, dimension=d)
            yield Row(f"d = {d}, R = {radius}: lower", found.lower, at_least=low)
            note = f"by {found.bound.theorem}, {found.upper / found.lower:.3f} times the lower end"
            yield Row(f"d = {d}, R = {radius}: upper", found.upper, note, at_most=high)


def random() -> Iterator[Row]:
    """Random, rotation-like and positive A with random V on the unit ball: lower over upper."""
    rng = np.random.default_rng(0)
    kinds = {
        "random": lambda d: rng.normal(size=(d, d)),
        "rotation": lambda d: np.linalg.qr(rng.normal(size=(d, d)))[0],
        "positive": lambda d: (lambda a: a @ a.T / d)(rng.normal(size=(d, d))),
    }
    for d in (2, 4):
        for kind, make in kinds.items():
            for p in (1, 2, math.inf):
                tightness, violations = [], 0
                for _ in range(20 if kind == "random" else 5):
                    jax.clear_caches()  # every search compiles its own loop
                    value = rng.normal(size=(d, d))
                    layer = ma.SelfAttention(ma.Bilinear(make(d), np.eye(d)), value)
                    below = search(layer, Ball(1.0), key=KEY, p=p, starts=16, steps=150)
                    above = bound(layer, Ball(1.0), p)
                    violations += below.value > above.value
                    tightness.append(above.value / below.value)
                note = (
                    f"upper / lower: median {np.median(tightness):.3g}, worst {max(tightness):.3g}"
                )
                name = f"{kind} A, d = {d}, p = {p:g}: violations"
                yield Row(name, float(violations), note, at_most=0)


CASES = (repelling, attracting, random)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    run_cases(CASES, __doc__)
