"""The re-check of a certificate: every derived number is computed again and compared."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import files, transport
from .domains import Region, region
from .files import Arrays, array, number
from .formulas import Question, check
from .outputs import LARGEST_WORK, Head, both, heads
from .report import Item, Rejected, Report

AGREEMENT = 1e-9
"""How far a claim may stay on the safe side of what is recomputed, relative, besides rounding."""

LEAST_MASS = 1e-250
"""Products with smaller masses leave the normal numbers."""


def verify(file: Any) -> Report:
    """Check a certificate that `Bracket.save` wrote, trusting nothing in it.

    The outputs of the layer are computed from its matrices, the distance of the measures before is
    bounded by the stored plan, that after by the stored potentials, the quotient by both; the
    bound by the formula of its theorem, whose hypotheses are checked. NumPy, SciPy and the
    standard library do it, in float64 and, where differences are smaller, in decimals.

    Args:
        file: the JSON file; its arrays lie beside it.

    Returns:
        A report: each number as claimed and as recomputed, and the verdict.

    Raises:
        OSError: there is no such file, or it is none that can be read.
    """
    path, items = Path(file), list[Item]()
    try:
        entries, arrays = files.read(path)
        items.append(_property("the arrays", "their sha256 is the one in the file"))
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            _check(entries, arrays, items)
    except Rejected as error:
        items.append(_property("the certificate", str(error), False))
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        reason = f"its numbers are too large or too small to be re-checked: {error}"
        items.append(_property("the certificate", reason, False))
    return Report(path.name, tuple(items))


def _check(entries: dict[str, Any], arrays: Arrays, items: list[Item]) -> None:
    """Add what is found to a list, so that what came before a rejection is not lost."""
    case = _case(entries, arrays)
    items.append(_property("the layer, domain and measures", "finite and consistent"))
    items += _inside(case)
    items += _lower(case, entries["lower"], arrays)
    items += _upper(case, entries["upper"])
    lower, upper = (
        number(f"the {part} end", entries[part]["value"]) for part in ("lower", "upper")
    )
    items.append(_property("the bracket", f"{lower:.15g} <= {upper:.15g}", lower <= upper))
    items.append(_property("its words", f"{', '.join(files.WORDS)}: texts, which nothing checks"))


class _Case(NamedTuple):
    """What the numbers of a certificate are about."""

    p: float
    atoms: int | None
    layer: list[Head]
    residual: bool
    region: Region
    x: NDArray
    y: NDArray
    weights: NDArray


def _property(name: str, reason: str, accepted: bool = True) -> Item:
    return Item(name, None, None, 0.0, accepted, reason)


def _case(entries: dict[str, Any], arrays: Arrays) -> _Case:
    question = entries["question"]
    p = math.inf if question["p"] == "inf" else number("p", question["p"], least=1.0)
    atoms, dimension = (
        value if value is None else _whole(name, value)
        for name, value in (("atoms", question["atoms"]), ("dimension", question["dimension"]))
    )
    if dimension is None:
        raise Rejected("the dimension must be a whole number")
    metric = "W_inf" if math.isinf(p) else f"W{p!r}".removesuffix(".0")
    if question["metric"] != metric:
        raise Rejected(f"the metric of order {p!r} is {metric}, got {question['metric']!r}")
    layer = heads(entries["layer"], arrays, dimension)
    x, y = (
        files.sized(f"witness.{name}", array(arrays, f"witness.{name}", None, dimension))
        for name in "xy"
    )
    weights = array(arrays, "witness.weights", len(x))
    if len(x) ** 2 > LARGEST_WORK:
        raise Rejected(f"{len(x)} atoms are too many to be re-checked")
    if len(x) == 0 or len(x) != len(y):
        raise Rejected("the two measures must have the same number of atoms, at least one")
    if not np.all(weights >= LEAST_MASS) or abs(math.fsum(weights) - 1) > 1e-12:
        raise Rejected(f"the weights must be at least {LEAST_MASS} and sum to 1")
    if (atoms is not None or math.isinf(p)) and np.ptp(weights) != 0:
        raise Rejected("the atoms must have equal weights")
    if atoms is not None and atoms != len(x):
        raise Rejected(f"the measures must have {atoms} atoms, got {len(x)}")
    where = region(entries["domain"], dimension)
    return _Case(p, atoms, layer, entries["layer"]["residual"], where, x, y, weights)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Rejected(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _inside(case: _Case) -> list[Item]:
    found = []
    for name, points in (("first", case.x), ("second", case.y)):
        excess = case.region.outside(points, case.weights)
        reason = "it lies in the domain" if excess == 0 else f"{excess:.3g} outside of the domain"
        found.append(_property(f"the {name} measure", reason, excess == 0))
    return found


def _plan(arrays: Arrays, name: str) -> tuple[NDArray, NDArray, NDArray]:
    rows = array(arrays, f"{name}.rows", None, kind="i")
    return (
        rows,
        array(arrays, f"{name}.cols", len(rows), kind="i"),
        array(arrays, f"{name}.mass", len(rows)),
    )


def _lower(case: _Case, claims: dict[str, Any], arrays: Arrays) -> list[Item]:
    """The quotient: the plan before, the potentials after, and what one says of the other."""
    x, y, weights, p = case.x, case.y, case.weights, case.p
    before = transport.above(x, y, weights, _plan(arrays, "before"), p)
    if before.value == 0:
        raise Rejected("the two measures are equal, so they show nothing")
    out, other, error, other_error = both(case.layer, case.residual, x, y, weights)
    after = transport.above(out, other, weights, _plan(arrays, "after"), p)
    n = len(weights)
    if math.isinf(p):
        blocking = array(arrays, "after.blocking", None, kind="i")
        dual = transport.below_everywhere(out, other, blocking)
    else:
        unit = float(array(arrays, "after.unit"))
        if not unit > 0:
            raise Rejected(f"the unit of length must be positive, got {unit!r}")
        u, v = (array(arrays, f"after.{name}", n) for name in "uv")
        dual = transport.below(out, other, weights, (unit, u, v), p)
    # rounding the outputs moved each measure by no more than this
    moved = sum(_mean(weights, part, p) for part in (error, other_error)) * (1 + 1e-9)
    far = max(dual.lower - moved, 0.0)
    slack = 16 * (dual.value - dual.lower + moved)
    items = [
        _compare("W before, from above", number("before", claims["before"]), before.upper, 0.0, 1),
        _transformed(dual),
        _compare("W after, from below", number("after", claims["after"]), far, slack, -1),
        _property(
            "the plan after",
            f"it costs {after.upper:.15g}, and the potentials are worth {dual.lower:.15g}",
            dual.lower <= after.upper,
        ),
    ]
    value, quotient = number("the lower end", claims["value"]), far / before.upper
    name = "the quotient (lower end)"
    return [*items, _compare(name, value, quotient, slack / before.upper, -1)]


def _transformed(dual: transport.Below) -> Item:
    fine = dual.difference <= dual.resolution
    reason = f"v is {dual.difference:.3g} from the c-transform of u, the largest that is feasible"
    reason = "feasible: v is the c-transform of u" if fine else reason
    return _property("the potentials after", reason, fine)


def _mean(weights: NDArray, lengths: NDArray, p: float) -> float:
    top = float(lengths.max())
    if math.isinf(p) or top == 0:
        return top
    return top * math.fsum(weights * (lengths / top) ** p) ** (1 / p)


def _upper(case: _Case, claims: dict[str, Any]) -> list[Item]:
    """The bound: that of each head by its theorem, and their sum."""
    items, parts = [_named(case.residual, claims)], [float(case.residual)]
    for k, (head, claim) in enumerate(zip(case.layer, claims["heads"], strict=True)):
        name, claimed = f"head {k} by {claim['theorem']}", number("a bound", claim["value"])
        parts.append(claimed)
        try:
            found = check(
                claim["theorem"], Question(head, case.region, case.p, case.atoms), claimed
            )
        except Rejected as error:
            items.append(_property(name, str(error), False))
            continue
        high = claimed > found.value + found.excess
        reason = "the theorem proves it" if found.proved else "the theorem does not prove it"
        reason = "it is not what the theorem says" if high else reason
        items.append(
            Item(name, claimed, found.value, found.excess, found.proved and not high, reason)
        )
    value, total = number("the upper end", claims["value"]), math.fsum(parts) * (1 + 4e-16)
    items.append(_compare("the sum over heads (upper end)", value, total, 1e-9 * total, 1))
    return items


def _named(residual: bool, claims: dict[str, Any]) -> Item:
    """The name of the bound, which is made of those of the theorems."""
    names = " + ".join(dict.fromkeys(claim["theorem"] for claim in claims["heads"]))
    names = f"1 + {names}" if residual else names
    return _property("the theorem", f"it must be {names}", claims["theorem"] == names)


def _compare(name: str, claimed: float, found: float, rounding: float, side: int) -> Item:
    """A claim must be on the safe side (+1: not below) of what was found, and near it."""
    allowance = rounding + AGREEMENT * abs(found)
    if (claimed - found) * side < 0:
        return Item(name, claimed, found, allowance, False, "it claims too much")
    if abs(claimed - found) > allowance:
        return Item(name, claimed, found, allowance, False, "it is another number")
    return Item(name, claimed, found, allowance, True, "recomputed")
