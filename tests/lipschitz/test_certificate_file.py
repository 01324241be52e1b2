"""Certificates that were written: accepted as they are, by a checker that needs nothing else."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import measattn as ma
from measattn import lipschitz as lip
from measattn.lipschitz import checker, exact
from measattn.lipschitz.checker import outputs
from measattn.lipschitz.checker.domains import region
from measattn.lipschitz.checker.formulas import Question, check
from measattn.lipschitz.checker.outputs import Head
from measattn.lipschitz.checker.report import Rejected
from measattn.lipschitz.forms import form
from measattn.lipschitz.quotient import evaluate
from measattn.lipschitz.results import Estimate, Witness
from measattn.lipschitz.theorems import THEOREMS, Case, Inapplicable
from tests.lipschitz.forging import HEADS, MATRIX, RNG, TRIANGLE, forge, shown

pytestmark = pytest.mark.float64


def test_a_certificate_is_accepted_and_its_numbers_are_those_of_the_bracket(original):
    found, file = original
    report = lip.verify(file)
    assert report.accepted, str(report)
    numbers = {item.name: item for item in report.items}
    lower, upper = numbers["the quotient (lower end)"], numbers["the sum over heads (upper end)"]
    assert lower.claimed == pytest.approx(found.lower, rel=1e-12)
    assert lower.claimed <= lower.recomputed
    assert upper.claimed == found.upper
    assert "H6" in found.bound.theorem


CROSS = ma.CrossAttention(ma.DotProduct(1.0), None, RNG.normal(size=(5, 2)))
CASES = {
    "F3": (ma.SelfAttention(ma.Gaussian(0.7)), lip.Ball(1.0, [0.2, 0.1]), 1),
    "F1 of 3 atoms": (ma.SelfAttention(ma.Gaussian(0.3)), lip.Ball(1.0), 2, TRIANGLE, 3),
    "H4 on a box": (ma.SelfAttention(ma.Bilinear(MATRIX, MATRIX)), lip.Box([0, 0], [1, 0.5]), 1),
    "heads and a residual": (ma.Residual(ma.MultiHead(HEADS, np.ones((2, 4)))), lip.Ball(1.0), 1.5),
    "infinite order": (HEADS[0], lip.Ball(1.0, [0.5, 0.0]), math.inf),
    "a memory": (CROSS, lip.Everywhere(second_moment=4.0), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_certificates_of_other_layers_domains_and_orders_are_accepted(tmp_path, case):
    report = lip.verify(shown(*CASES[case]).save(tmp_path))
    assert report.accepted, str(report)


@pytest.mark.parametrize(("p", "atoms"), [(1.0, None), (2.0, 5), (math.inf, 3)])
def test_the_checker_and_the_catalogue_agree_on_every_theorem(p, atoms):
    rng, agreed = np.random.default_rng(1), set()
    square = rng.normal(size=(2, 2))
    memory = ma.CrossAttention(ma.DotProduct(1.5), square, rng.normal(size=(4, 2)))
    potentials = [
        ma.Bilinear(square, np.eye(2)),
        ma.Bilinear(ma.Affine(square, np.array([0.3, -0.5])), np.eye(2)),
        ma.Bilinear(square, square),
        ma.DotProduct(1.3),
        ma.Gaussian(0.8),
    ]
    layers = [ma.SelfAttention(potential, square) for potential in potentials]
    for layer in [*layers, memory]:
        (head,) = form(layer, 2).heads
        score = {name: getattr(head.score, name, None) for name in ("matrix", "shift", "sigma")}
        mine = Head(**score, value=head.value, keys=head.memory)
        ball = region({"kind": "Ball", "radius": 0.9, "centre": None}, 2)
        question = Question(mine, ball, p, atoms)
        for theorem in (theorem for theorem in THEOREMS if theorem.proved):
            try:
                claimed = theorem.evaluate(Case(head, 0.9, 1.8, p, atoms))[0]
            except Inapplicable:
                continue
            found = check(theorem.name, question, claimed)
            assert found.proved, theorem.name
            assert claimed <= found.value + found.excess, theorem.name
            assert not check(theorem.name, question, 0.98 * claimed).proved, theorem.name
            agreed.add(theorem.name)
    names = {1.0: {"B1", "B3", "B6", "F3", "H2", "H4", "H6"}, math.inf: {"B3", "B6", "F1", "F3"},
             2.0: {"B3", "B6", "F1", "F3", "Castin √n", "Castin mean-field"}}  # fmt: skip
    assert agreed == names[p]


def test_the_library_charges_its_decimals_with_more_than_the_checker():
    """Else it would save claims that the checker refuses."""
    rng = np.random.default_rng(2)
    for size in (1.0, 1e12, 1e30):
        x, (a, b) = rng.normal(size=(5, 2)), size * rng.normal(size=(2, 2, 2))
        memory = ma.CrossAttention(ma.Gaussian(1 / size), b, rng.normal(size=(40, 2)))
        for layer in (ma.Residual(ma.SelfAttention(ma.Bilinear(a, np.eye(2)), b)), memory):
            known = form(layer, 2)
            heads = [
                Head(*(getattr(head.score, name, None) for name in ("matrix", "shift", "sigma")),
                     head.value, head.memory)
                for head in known.heads
            ]  # fmt: skip
            try:
                charged = outputs.lost(heads, known.residual, x)
            except Rejected:
                continue
            assert charged <= exact.lost(known, x)


@pytest.mark.parametrize("p", [1.5, 2.0, 7.0])
def test_points_whose_outputs_coincide_on_a_line_are_certified(tmp_path, p):
    """A transport solver merges them, and would charge the rounding of their masses, or give up."""
    x = np.array([[0.2491769], [0.99975586], [-0.99975586], [-0.99975586]])
    y = x + np.array([[-1.2e-4], [1.8e-5], [1.8e-5], [1.9e-5]])
    logs = np.array([-27.62431989, -0.69239423, -1.92381872, -1.03965907])
    mass = np.exp(logs + 3e-3 * np.random.default_rng(3).normal(size=4))
    layer = ma.SelfAttention(ma.Bilinear([[0.12573022]], [[1.0]]), [[-0.13210486]])
    pair = evaluate(layer, form(layer, 1), x, y, mass / mass.sum(), p)
    bound = lip.bound(layer, lip.Ball(1.0), p, dimension=1)
    witness = Witness(pair.mu, pair.nu, pair.before, pair.after)
    estimate = Estimate(pair.value, witness, p, lip.Ball(1.0), 1, "by hand")
    found = lip.Bracket(pair.value, bound.value, estimate, bound, layer)
    assert lip.verify(found.save(tmp_path)).accepted
    certified = lip.verify(tmp_path / "certificate.json").items
    quotient = next(item for item in certified if item.name.startswith("the quotient"))
    assert found.lower == pytest.approx(quotient.recomputed, rel=1e-10)


@pytest.mark.slow
def test_a_search_is_certified(tmp_path):
    layer = ma.SelfAttention(ma.DotProduct(-1.0))
    found = lip.bracket(layer, lip.Ball(2.0), key=jax.random.key(0), dimension=3)
    report = lip.verify(found.save(tmp_path))
    assert report.accepted, str(report)
    assert found.upper <= 1.001 * found.lower


def test_a_maximum_is_accepted_as_it_was_written(maximum):
    assert lip.verify(maximum[1]).accepted


@pytest.mark.parametrize(
    "layer",
    [
        ma.SelfAttention(ma.DotProduct(1.0), lambda x: x),
        ma.Stack([HEADS[0], HEADS[1]]),
    ],
)
def test_a_layer_that_cannot_be_computed_again_is_not_certified(tmp_path, original, layer):
    broken = dataclasses.replace(original[0], layer=layer)
    with pytest.raises(lip.UnreadableLayer, match="cannot be certified"):
        broken.save(tmp_path)


def test_a_certificate_has_the_suffix_json(tmp_path, original):
    with pytest.raises(ValueError, match=r"suffix \.json"):
        original[0].save(tmp_path / "bracket.txt")


def test_the_checker_works_alone_without_jax_and_the_library(original, tmp_path):
    shutil.copytree(Path(checker.__file__).parent, tmp_path / "checker")
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "for name in ('jax', 'jaxlib', 'measattn', 'ot', 'equinox'): sys.modules[name] = None\n"
        f"import checker; report = checker.verify({str(original[1])!r})\n"
        "print(report); sys.exit(not report.accepted)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# one process for several commands: importing takes seconds
COMMANDS = """
import sys
from measattn.cli import main
for arguments in {arguments!r}:
    sys.argv = ["measattn", "verify", *arguments]
    try:
        main()
    except SystemExit as ended:
        print("status", ended.code, flush=True)
"""


def test_the_command_line_says_accepted_with_0_and_rejected_with_1(original, file):
    def change(entries):
        entries["lower"]["value"] *= 2

    forge(file, change)
    arguments = [[str(original[1])], [str(file), "--json"], [str(file.parent / "absent.json")]]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS.format(arguments=arguments)], capture_output=True, text=True
    )
    accepted, rejected, _ = done.stdout.split("status ", 2)
    assert accepted.startswith("certificate.json: accepted")
    assert rejected.startswith("0\n")
    assert json.loads(rejected[2:])["accepted"] is False
    assert [line for line in done.stdout.splitlines() if line.startswith("status")] == [
        "status 0",
        "status 1",
        "status 2",
    ]
    assert done.stderr.startswith("error: there is no file")


def test_a_memory_is_certified_in_float32_mode_too(tmp_path):
    """JAX's default; what is light there counts as well."""
    with jax.enable_x64(False):
        points = np.array([[0.0, 1.0], [1.0, 0.0], [-3.0, 0.5]])
        memory = ma.weighted(points, [0.5, 0.5, 1e-40])
        layer = ma.Residual(ma.CrossAttention(ma.Bilinear(np.eye(2), np.eye(2)), None, memory))
        heavy = ma.CrossAttention(ma.DotProduct(1.0), None, ma.EmpiricalMeasure(points))
        found = lip.bracket(layer, lip.Ball(1.0), key=jax.random.key(0), starts=4, steps=20)
        assert found.upper == pytest.approx(1 + lip.bound(heavy, lip.Ball(1.0), dimension=2).value)
        assert lip.verify(found.save(tmp_path)).accepted


def test_sizes_beyond_the_checker_are_refused_with_a_remedy(tmp_path):
    found = shown(ma.SelfAttention(ma.DotProduct(1.0), 1e-60 * np.eye(2)), lip.Ball(1.0))
    with pytest.raises(RuntimeError, match=r"size of 1e-50 to(.|\n)*in other units"):
        found.save(tmp_path)
