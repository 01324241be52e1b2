r"""Attention to a fixed memory: only the queries move.

Source: B0 and B6 of docs/theory-lipschitz.md.
"""

import numpy as np
from scipy.spatial.distance import pdist

from measattn.lipschitz.forms import Dot
from measattn.lipschitz.results import Hypothesis
from measattn.lipschitz.theorems.base import UP, Case, Inapplicable, Theorem, unmasked

PAIRS = 4096
"""Up to this many atoms the diameter of a memory is the largest of all distances."""


def _b6(case: Case) -> tuple[float, tuple[Hypothesis, ...]]:
    memory = case.head.memory
    if memory is None:
        raise Inapplicable("needs a fixed memory; found self-attention")
    checked = (Hypothesis("a fixed memory", True, f"{len(memory[0])} atoms"), unmasked(case))
    points = memory[0][memory[1] > 0]
    if len(points) <= PAIRS:
        unit = float(np.abs(points).max()) or 1.0  # so that no square is lost
        diameter = unit * float(pdist(points / unit).max(initial=0.0))
    else:
        diameter = 2 * float(np.linalg.norm(points - points.mean(axis=0), axis=1).max())
    kappa = case.kappa if isinstance(case.head.score, Dot) else UP / case.gauss.sigma**2
    return (case.value * diameter) * (kappa * diameter) / 4 * UP, checked


B6 = Theorem(
    "B6",
    "‖V‖κD²/4, D the diameter of the memory",
    "docs/theory-lipschitz.md, B0 and B6",
    True,
    _b6,
)
