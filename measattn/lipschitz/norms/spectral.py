"""What is known of the largest singular value of a matrix."""

from typing import NamedTuple

from numpy.typing import NDArray


class SpectralNorm(NamedTuple):
    """The largest singular value.

    Attributes:
        value: $|Ju|/|u|$ at ``direction``.
        upper: above it but for ``probability``.
        direction: u (N,), of length 1.
        probability: with which the random start may have misled; 0 for a deterministic bound.
        steps: of Lanczos.
    """

    value: float
    upper: float
    direction: NDArray
    probability: float
    steps: int
