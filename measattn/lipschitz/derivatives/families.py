r"""From the derivative of a layer to sums of norms, for p = 1 and for p = ∞.

For p = 1 a problem is an atom j that moves along u, a term what reaches output i,
$\frac{\omega_i}{\omega_j}|J_{ij}u|$; for p = ∞ a problem is an output i that is watched along w, a
term what comes from atom j, $|J_{ij}^\top w|$.
Source: G1 of docs/theory-lipschitz.md.
"""

import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.derivatives.blocks import AUTODIFF, BlockNorms, spectral
from measattn.lipschitz.derivatives.mixed import Mixed
from measattn.lipschitz.derivatives.parts import Parts
from measattn.lipschitz.derivatives.rankone import RankOne, Terms
from measattn.lipschitz.derivatives.rows import thin
from measattn.lipschitz.norms.problem import UP, AbstractSums


def columns(parts: Parts, weights: NDArray, blocks: BlockNorms, split: bool) -> AbstractSums:
    """Atoms that move, whole or (``split``) by a part.

    Args:
        parts: the derivative.
        weights: of the atoms (n,), positive.
        blocks: bounds of the blocks' norms and rounding.
        split: whether a part of an atom may move.
    """
    share = weights[:, None] / weights[None, :]
    slack = (blocks.rounding * share).sum(axis=0)
    own = parts.own if split else parts.diagonal
    if not split:
        np.fill_diagonal(share, 0)
    last = spectral(parts.own) if split else blocks.diagonal
    sizes = np.concatenate([blocks.keyed * share, last[None]])
    if not parts.alone:
        return Mixed(parts, own, share, False, sizes, slack)
    head, value = parts.heads[0], parts.heads[0].value
    keys, tilts, p = _as_keys(parts)
    means = -head.means @ value.T
    terms = Terms(p * share, value, means, keys @ value.T, head.slopes, tilts, own)
    inputs = (value, head.slopes, head.matrix)
    return _reduced(terms, sizes, slack, inputs, (value.T,))


def outputs(parts: Parts, blocks: BlockNorms) -> AbstractSums:
    """Outputs that are watched: transposed blocks."""
    own = parts.diagonal.swapaxes(1, 2)
    share = 1 - np.eye(len(own))
    slack = blocks.rounding.sum(axis=1)
    sizes = np.concatenate([blocks.keyed.T * share, blocks.diagonal[None]])
    if not parts.alone:
        return Mixed(parts, own, share, True, sizes, slack)
    head, value = parts.heads[0], parts.heads[0].value
    keys, tilts, p = _as_keys(parts)
    means = -head.means @ value.T
    terms = Terms(p.T * share, value.T, tilts, head.slopes, keys @ value.T, means, own)
    inputs = (value, head.slopes, head.matrix)
    return _reduced(terms, sizes, slack, (value.T,), inputs)


def _as_keys(parts: Parts) -> tuple[NDArray, NDArray, NDArray]:
    """Keys, tilts and softmax weights through which atoms reach others; none of a memory."""
    head, (n, _, d) = parts.heads[0], parts.own.shape
    if not head.own:
        return (
            np.zeros((n, head.value.shape[1])),
            np.zeros((n, head.slopes.shape[1])),
            np.zeros((n, n)),
        )
    tilts = np.zeros((n, d)) if head.tilts is None else head.tilts
    return head.keys, tilts, head.p


def _reduced(
    terms: Terms, sizes: NDArray, slack: NDArray, inputs: tuple, results: tuple
) -> RankOne:
    """The family on the subspaces that its matrices see, where these are much smaller.

    The bases are those of the rows of ``inputs`` and ``results``; what the arrays lose is measured
    and added to the slack.
    """
    longest = _longest(terms.p) + _longest(terms.p_own), _longest(terms.r) + _longest(terms.r_own)
    seen = _basis(inputs, terms.dense)
    if seen is not None:
        cut, lost = _cut(seen, terms.matrix, terms.r, terms.r_own, terms.dense)
        terms = terms._replace(matrix=cut[0], r=cut[1], r_own=cut[2], dense=cut[3])
        each = _norm(lost[0]) + longest[0] * (_longest(lost[1]) + _longest(lost[2]))
        slack = slack + (terms.q.sum(axis=0) * each + np.linalg.norm(lost[3], axis=(1, 2))) * UP
    dense = terms.dense.swapaxes(1, 2)
    reached = _basis(results, dense)
    if reached is not None:
        cut, lost = _cut(reached, terms.matrix.T, terms.p, terms.p_own, dense)
        dense = cut[3].swapaxes(1, 2)
        terms = terms._replace(matrix=cut[0].T, p=cut[1], p_own=cut[2], dense=dense)
        each = _norm(lost[0]) + longest[1] * (_longest(lost[1]) + _longest(lost[2]))
        slack = slack + (terms.q.sum(axis=0) * each + np.linalg.norm(lost[3], axis=(1, 2))) * UP
    return RankOne(terms, sizes, slack, seen)


def _basis(rows: tuple, dense: NDArray) -> NDArray | None:
    """An orthonormal basis (d, s) of the rows; None if it is no gain, or ``dense`` is not in it."""
    _, factor = thin(np.concatenate(rows))
    if 2 * len(factor) > factor.shape[1]:
        return None
    basis = np.linalg.qr(factor.T)[0]
    lost = _norm(dense - (dense @ basis) @ basis.T)
    return basis if lost <= AUTODIFF * _norm(dense) else None


def _cut(basis: NDArray, *arrays: NDArray) -> tuple[list[NDArray], list[NDArray]]:
    """Arrays in the coordinates of a basis, and what they lose."""
    cut = [a @ basis for a in arrays]
    return cut, [a - c @ basis.T for a, c in zip(arrays, cut, strict=True)]


def _longest(a: NDArray) -> float:
    return float(np.linalg.norm(a, axis=1).max())


def _norm(a: NDArray) -> float:
    return float(np.linalg.norm(a))
