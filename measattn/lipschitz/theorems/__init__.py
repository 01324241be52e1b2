"""The theorems, one file a theme: each checks its own hypotheses, and rounds upwards."""

from measattn.lipschitz.theorems.base import Case, Inapplicable, Theorem
from measattn.lipschitz.theorems.bilinear import B1, B3
from measattn.lipschitz.theorems.gaussian import F1, F3
from measattn.lipschitz.theorems.literature import (
    CASTIN_MEAN_FIELD,
    CASTIN_ROOT,
    KIM,
    KIM_LARGEST,
    NAIR,
    YUDIN,
)
from measattn.lipschitz.theorems.masks import M1
from measattn.lipschitz.theorems.memory import B6
from measattn.lipschitz.theorems.symmetric import H2, H4
from measattn.lipschitz.theorems.weighted_column import H6

THEOREMS = (
    *(B1, B3, B6, F1, F3, H2, H4, H6, M1),
    *(CASTIN_ROOT, CASTIN_MEAN_FIELD, NAIR, YUDIN, KIM, KIM_LARGEST),
)
"""All of them, the proved ones first."""

__all__ = ["THEOREMS", "Case", "Inapplicable", "Theorem"]
