"""Certificates: a bracket as a file that another program can check.

A JSON file names the layer, the domain, the metric, what is claimed and by which theorem; an npz
file beside it, whose sha256 it has, holds the matrices, the two measures, a plan before and after
the layer, and dual potentials after it.
"""

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from measattn.lipschitz.checker import verify
from measattn.lipschitz.checker.files import FORMAT, VERSION
from measattn.lipschitz.domains import AbstractDomain, Ball, Box, Everywhere, Simplex, Sphere
from measattn.lipschitz.forms import Dot, Form, UnreadableLayer, form
from measattn.lipschitz.masses import masses
from measattn.lipschitz.quotient import evaluate, in_float64
from measattn.lipschitz.results import Bound, Estimate
from measattn.lipschitz.theorems import THEOREMS, Case, Inapplicable
from measattn.lipschitz.threads import one_blas_thread

Arrays = dict[str, NDArray]


def write(file: Any, layer: Any, estimate: Estimate, bound: Bound) -> Path:
    """Write a certificate and check it.

    Args:
        file: the name of the JSON file, or a folder, which gets ``certificate.json``; the arrays
            go beside it under the same name with the suffix .npz.
        layer: an attention layer, with or without a residual, whose maps are matrices.
        estimate: what `search` found.
        bound: what proves the upper end.

    Returns:
        The JSON file.

    Raises:
        UnreadableLayer: a plain function, a mask or several layers: nothing that a checker could
            compute again.
        ValueError: a name without the suffix .json, or a bound that is infinite.
        RuntimeError: `verify` does not accept the certificate: sizes beyond 1e-50 to 1e50, points
            whose floats do not lie on their sphere, or else a fault of the library.
    """
    path, layer = _path(file), in_float64(layer)
    known = _readable(layer, estimate)
    if not math.isfinite(bound.value) or not bound.proved:
        raise ValueError(f"the bound must be finite and proved to be certified, got {bound!r}")
    arrays, heads = _layer(known)
    lower, more = _lower(layer, known, estimate)
    content = _packed(arrays | more)
    entries = {
        "format": FORMAT,
        "version": VERSION,
        "program": "measattn",
        "question": {
            "p": "inf" if math.isinf(bound.p) else bound.p,
            "atoms": estimate.atoms,
            "metric": bound.metric,
            "dimension": known.dimension,
        },
        "layer": {"residual": known.residual, "heads": heads},
        "domain": _domain(bound.domain),
        "lower": lower,
        "upper": {
            "value": bound.value,
            "theorem": bound.theorem,
            "statement": bound.statement,
            "source": bound.source,
            "heads": _claims(layer, estimate, bound),
            "hypotheses": [[each.text, each.found] for each in bound.hypotheses],
        },
        "arrays": {
            "file": path.with_suffix(".npz").name,
            "sha256": hashlib.sha256(content).hexdigest(),
        },
    }
    path.with_suffix(".npz").write_bytes(content)
    path.write_text(json.dumps(entries, indent=1, allow_nan=False, ensure_ascii=False), "utf-8")
    with one_blas_thread():
        report = verify(path)
    if not report.accepted:
        raise RuntimeError(
            f"verify does not accept the certificate of this bracket:\n{report}\nWhere it names a "
            "size or a point outside the domain, measure the states in other units or from another "
            "origin; else this is a fault of the library, please report it with the layer"
        )
    return path


def _path(file: Any) -> Path:
    path = Path(file)
    if path.is_dir():
        path = path / "certificate.json"
    if path.suffix != ".json":
        raise ValueError(f"file must be a folder or have the suffix .json, got {path}")
    return path


def _readable(layer: Any, estimate: Estimate) -> Form:
    """The matrices of a layer that a checker can compute again."""
    try:
        with jax.enable_x64(True):
            known = form(layer, estimate.witness.mu.dimension)
    except UnreadableLayer as error:
        raise UnreadableLayer(f"this layer cannot be certified: {error}") from None
    if known.masked or not estimate.exact:
        raise UnreadableLayer(
            "this layer cannot be certified: it is masked, so that its outputs are no function of "
            "the law of the states"
        )
    return known


def _layer(known: Form) -> tuple[Arrays, list[dict[str, Any]]]:
    arrays, heads = {}, []
    for k, head in enumerate(known.heads):
        arrays[f"head.{k}.value"], arrays[f"head.{k}.constant"] = head.value, head.shift
        if isinstance(head.score, Dot):
            score, sigma = "dot", None
            arrays[f"head.{k}.matrix"] = head.score.matrix
            arrays[f"head.{k}.shift"] = head.score.shift
        else:
            score, sigma = "gauss", head.score.sigma
        if head.memory is not None:
            arrays[f"head.{k}.points"], arrays[f"head.{k}.weights"] = head.memory
        heads.append({"score": score, "sigma": sigma, "memory": head.memory is not None})
    return arrays, heads


def _lower(layer: Any, known: Form, estimate: Estimate) -> tuple[dict[str, Any], Arrays]:
    """The claims of the witness, and what proves them."""
    mu, nu = estimate.witness.mu, estimate.witness.nu
    x, y = (np.asarray(law.points, np.float64) for law in (mu, nu))
    shown = evaluate(layer, known, x, y, masses(mu), estimate.p)
    weights = masses(shown.mu)
    atoms = np.arange(len(weights))
    arrays = {"witness.x": x, "witness.y": y, "witness.weights": weights}
    plans = {"before": (atoms, atoms, weights), "after": shown.plan}
    for name, plan in plans.items():
        for part, values in zip(("rows", "cols", "mass"), plan, strict=True):
            arrays[f"{name}.{part}"] = values
    if math.isinf(estimate.p):
        arrays["after.blocking"] = shown.potentials[0]
    else:
        arrays["after.unit"] = np.asarray(shown.unit)
        arrays["after.u"], arrays["after.v"] = shown.potentials
    claims = {
        "value": shown.value,
        "before": shown.before,
        "after": shown.after,
        "found": estimate.found,
    }
    return claims, arrays


def _claims(layer: Any, estimate: Estimate, bound: Bound) -> list[dict[str, Any]]:
    """For each head the best of the theorems that the bound is made of."""
    domain = bound.domain
    names = set(bound.theorem.split(" + "))
    used = [theorem for theorem in THEOREMS if theorem.name in names]
    centre = None if domain.centre is None else np.asarray(domain.centre, np.float64)
    claims = []
    for head in form(layer, estimate.witness.mu.dimension, centre).heads:
        case = Case(head, domain.radius, domain.diameter, bound.p, estimate.atoms)
        values = {}
        for theorem in used:
            try:
                values[theorem.name] = theorem.evaluate(case)[0]
            except Inapplicable:
                continue  # it is about another head
        name = min(values, key=lambda each: values[each])
        claims.append({"theorem": name, "value": values[name]})
    return claims


def _domain(domain: AbstractDomain) -> dict[str, Any]:
    match domain:
        case Ball() | Sphere():
            centre = None if domain.centre is None else domain.centre.tolist()
            numbers = {"radius": domain.radius, "centre": centre}
        case Box():
            numbers = {"low": domain.low.tolist(), "high": domain.high.tolist()}
        case Simplex():
            numbers = {"dimension": int(domain.dimension)}
        case Everywhere():
            numbers = {"second_moment": domain.second_moment}
        case _:
            raise ValueError(f"a domain of one's own cannot be certified, got {domain!r}")
    return {"kind": type(domain).__name__, **numbers}


def _packed(arrays: Arrays) -> bytes:
    """An npz archive of floats and whole numbers; the same bytes for the same arrays."""
    kinds = {"f": np.float64, "i": np.int64, "u": np.int64}
    plain = {name: np.asarray(a, kinds[np.asarray(a).dtype.kind]) for name, a in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **plain)
    return buffer.getvalue()
