r"""Which measures near a given one compete for its local Lipschitz constant.

A local constant says nothing until one says what may move: for one head on three atoms the classes
differ by a factor of two, for a strong score by thousands. Always Whole ≤ Split ≤ Anywhere.

Source: G1 of docs/theory-lipschitz.md.
"""

from dataclasses import dataclass

from measattn.lipschitz.domains import AbstractDomain


@dataclass(frozen=True)
class Whole:
    r"""Atoms move whole, with fixed weights: these n tokens, perturbed.

    $$ p = 1:\ \max_i\max_{|u|=1}\sum_j\frac{\omega_j}{\omega_i}|J_{ji}u|, \qquad
       p = 2:\ \|\Omega^{1/2}J\Omega^{-1/2}\|_2, \qquad
       p = \infty:\ \max_j\max_{|w|=1}\sum_i|J_{ji}^\top w| . $$
    """


@dataclass(frozen=True)
class Split:
    r"""A part of an atom may move: the same points, with any multiplicities; p = 1.

    $$ \max_i\max_{|u|=1}\Bigl[|D(x_i)u| + \sum_j\omega_j|M_{x_j}(x_i)u|\Bigr] . $$
    """


@dataclass(frozen=True)
class Anywhere:
    r"""A little mass may sit anywhere in a domain: all measures near this one.

    $$ p = 1:\ L(\mu) = \sup_{x\in E}\max_{|u|=1}\Bigl[|D(x)u| + \int|M_z(x)u|\,\mu(dz)\Bigr] . $$

    Args:
        domain: E, which holds the measure.
    """

    domain: AbstractDomain


Moves = Whole | Split | Anywhere
