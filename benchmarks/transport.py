"""The exact transport of measattn beside POT, SciPy and, where installed, OTT-JAX and GeomLoss.

Both sides of a ratio run in the same process, in turn, and are given points: building the costs
counts. A ratio is the peer's median over ours, after one call of each that is not counted, which
excludes what either compiles. Absolute seconds on a shared machine mean little.

Run: ``python benchmarks/transport.py [--large] [--peers] [--json FILE] [case ...]``

``--large`` adds the cases that take minutes. ``--peers`` runs POT's dense solver at n = 20,000
(minutes and 17 GB) and stores its time in ``stored.json``, with which later runs are compared.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import clouds
import jax
import numpy as np
from measuring import alone, interleaved
from peers import assignment, entropic, pot
from report import Row, about
from scipy.stats import wasserstein_distance

import measattn as ma

N, RUNS = 4096, 3
ACCURACY = 1e-9
"""The relative agreement asked of two exact solvers."""
STORED = Path(__file__).with_name("stored.json")
POT_BYTES, POT_SECONDS = 20e9, 3600.0
"""What POT may take on the dense problem, which peaks at 17 GB."""


def w1(x, y, a=None, b=None):
    mu = ma.EmpiricalMeasure(x) if a is None else ma.weighted(x, a)
    nu = ma.EmpiricalMeasure(y) if b is None else ma.weighted(y, b)
    return float(ma.wasserstein.w1(mu, nu))


def beside(name, ours, peers, *, required=None, runs=RUNS, agreement=ACCURACY) -> Iterator[Row]:
    """The ratio of each peer to us, the first of which is required, and how far they agree."""
    times, values = interleaved({"ours": ours, **peers}, runs)
    for peer in peers:
        note = f"{times[peer]:.3f} s / {times['ours']:.3f} s"
        yield Row(f"{name}: {peer} / ours", times[peer] / times["ours"], note, at_least=required)
        error = np.abs(np.asarray(values[peer]) / np.asarray(values["ours"]) - 1).max()
        yield Row("    relative difference of values", float(error), at_most=agreement)
        required = None


def random() -> Iterator[Row]:
    """Random pairs, n = m = 4,096."""
    for d, required in ((8, 4), (64, 2)):
        x, y = clouds.random(N, N, d)
        peers = {"POT": partial(pot, x, y)}
        if d == 8:
            peers["SciPy assignment"] = partial(assignment, x, y)
        yield from beside(f"d = {d}", partial(w1, x, y), peers, required=required)


def matched() -> Iterator[Row]:
    """Nearly matched pairs, n = m = 4,096: permuted points with one per cent of noise."""
    for d in (8, 64):
        x, y = clouds.matched(N, d)
        peers = {"POT": partial(pot, x, y), "SciPy assignment": partial(assignment, x, y)}
        yield from beside(f"d = {d}", partial(w1, x, y), peers, required=10)


def weighted() -> Iterator[Row]:
    """General weights, n = 4,096 and m = 3,000, d = 8."""
    x, y = clouds.random(N, 3000, 8)
    rng = np.random.default_rng(1)
    a, b = (w / w.sum() for w in (rng.random(len(x)), rng.random(len(y))))
    peers = {"POT": partial(pot, x, y, a, b)}
    yield from beside("weights", partial(w1, x, y, a, b), peers, required=2)


def line() -> Iterator[Row]:
    """The line, n = m = 100,000; SciPy's formula gives neither plan nor certificate."""
    x, y = clouds.random(100_000, 100_000, 1)
    peers = {"SciPy": lambda: wasserstein_distance(x[:, 0], y[:, 0])}
    yield from beside("d = 1", partial(w1, x, y), peers)


def inside() -> Iterator[Row]:
    """256 pairs of 32 points, d = 8, under jit and vmap; the loop over POT gives no gradient."""
    x, y = clouds.batch(256, 32, 8)

    def distance(x, y):
        return ma.wasserstein.distance(ma.EmpiricalMeasure(x), ma.EmpiricalMeasure(y))

    values = jax.jit(jax.vmap(distance))
    gradients = jax.jit(jax.vmap(jax.value_and_grad(distance)))
    peers = {"loop of POT": lambda: [pot(*pair) for pair in zip(x, y, strict=True)]}
    for name, ours in (("value", values), ("grad", lambda x, y: gradients(x, y)[0])):
        yield from beside(name, partial(_to_host, ours, x, y), peers, runs=7)


def _to_host(f, *arrays):
    return np.asarray(f(*arrays))


def warm() -> Iterator[Row]:
    """Along 20 attention layers, n = 2,048, d = 8: each problem from the one before it."""
    laws = clouds.trajectory(2048, 20)
    series = {
        "W1(mu_t, mu_t+1)": list(pairwise(laws)),
        "W1(mu_0, mu_t)": [(laws[0], law) for law in laws[1:]],
    }
    for name, problems in series.items():
        before = ma.wasserstein.w1(*problems[0])  # compiles, and is what the second starts from
        solved = {"cold": [], "warm": []}
        for problem in problems[1:]:
            solved["cold"].append(ma.wasserstein.w1(*problem))
            solved["warm"].append(ma.wasserstein.w1(*problem, start=before))
            before = solved["warm"][-1]
        cold, hot = (sum(s.seconds for s in solved[kind]) for kind in ("cold", "warm"))
        rounds = [sum(s.iterations for s in solved[kind]) for kind in ("warm", "cold")]
        note = f"{hot:.2f} s / {cold:.2f} s, rounds {rounds[0]} / {rounds[1]}"
        yield Row(f"{name}: warm / cold", hot / cold, note, at_most=0.5)


def growth(sizes=(4096, 8192, 16384)) -> Iterator[Row]:
    """Random pairs, d = 8: how the time grows with n."""
    w1(*clouds.random(sizes[0], sizes[0], 8))
    seconds = []
    for n in sizes:
        x, y = clouds.random(n, n, 8)
        start = time.perf_counter()
        w1(x, y)
        seconds.append(time.perf_counter() - start)
    slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    note = ", ".join(f"{n}: {t:.1f} s" for n, t in zip(sizes, seconds, strict=True))
    yield Row("slope of the log-log fit", float(slope), note, at_most=2.2)


def certified(ours, memory) -> Iterator[Row]:
    """What every problem that is solved in a process of its own has to keep."""
    yield Row("certified relative gap", ours["gap"], f"W1 = {ours['value']:.9g}", at_most=1e-6)
    yield Row("peak memory in GB", ours["peak"], at_most=memory)
    yield Row("minutes", ours["seconds"] / 60, f"{ours['rounds']} rounds")


def dense(peers=False) -> Iterator[Row]:
    """With n = m = 20,000, d = 8, where the matrix of costs alone takes 3.2 GB."""
    x, y = clouds.random(20_000, 20_000, 8)
    ours = alone("measattn", x, y)
    yield from certified(ours, memory=1.5)
    if peers:
        try:
            theirs = alone("pot", x, y, memory=POT_BYTES, limit=POT_SECONDS)
        except subprocess.TimeoutExpired:
            theirs = {"seconds": POT_SECONDS, "unfinished": True}
        STORED.write_text(json.dumps({**theirs, **about()}, indent=2) + "\n")
    if not STORED.exists():
        print("  POT's dense solver: no stored time; run with --peers")
        return
    theirs = json.loads(STORED.read_text())
    bound = "more than " if "unfinished" in theirs else ""
    note = f"{bound}{theirs['seconds']:.0f} s / {ours['seconds']:.1f} s"
    origin = "run now" if peers else f"stored {theirs['date']}: {theirs['machine']}"
    ratio = theirs["seconds"] / ours["seconds"]
    yield Row("POT dense / ours", ratio, f"{note}; {origin}", at_least=15)
    if "value" in theirs:
        yield Row("    its peak memory in GB", theirs["peak"])
        error = abs(theirs["value"] / ours["value"] - 1)
        yield Row("    relative difference of values", error, at_most=ACCURACY)


def hundred_thousand() -> Iterator[Row]:
    """With n = m = 100,000, d = 8."""
    yield from certified(alone("measattn", *clouds.random(100_000, 100_000, 8), tol=1e-6), 4)


def tokens() -> Iterator[Row]:
    """20,000 tokens of a real text before and after a layer of MiniLM, d = 384."""
    yield from certified(alone("measattn", *clouds.tokens(20_000), tol=1e-6), 4)


def sinkhorn() -> Iterator[Row]:
    """Entropic peers on random pairs, n = m = 2,048, d = 8: cost and error, nothing required."""
    x, y = clouds.random(2048, 2048, 8)
    peers = entropic(x, y)
    yield from beside("d = 8", partial(w1, x, y), peers, runs=1, agreement=None)


def rows_of(case) -> Iterator[Row]:
    """The rows of a case; a problem that is not solved falls short as well."""
    try:
        yield from case()
    except (ma.wasserstein.TransportError, subprocess.CalledProcessError) as error:
        yield Row("certified relative gap", float("inf"), f"not solved: {error}", at_most=1e-6)


CASES = (random, matched, weighted, line, inside, sinkhorn, warm, growth, dense)
LARGE = (hundred_thousand, tokens)


def main() -> None:
    """Run the cases, print their rows, and store them if asked to."""
    every = {case.__name__: case for case in (*CASES, *LARGE)}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", nargs="*", help=", ".join(every))
    parser.add_argument("--large", action="store_true", help="cases that take minutes as well")
    parser.add_argument("--peers", action="store_true", help="run POT's dense solver as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a record")
    options = parser.parse_args()
    if unknown := sorted(set(options.case) - every.keys()):
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(every)}")
    jax.config.update("jax_enable_x64", True)
    every["dense"] = partial(dense, options.peers)
    if options.large:
        every["growth"] = partial(growth, [2**k for k in range(12, 17)])
    default = (*CASES, *LARGE) if options.large else CASES
    record = about()
    print("\n".join(f"{name}: {value}" for name, value in record.items()))
    rows = []
    for name in options.case or [case.__name__ for case in default]:
        described = {case.__name__: case.__doc__ for case in (*CASES, *LARGE)}[name]
        print(f"\n{name}. {described}", flush=True)
        for row in rows_of(every[name]):
            print(row, flush=True)
            rows.append({"case": name, **row._asdict(), "verdict": row.verdict})
    if options.json:
        options.json.write_text(json.dumps({**record, "rows": rows}, indent=2) + "\n")
    short = [row["what"] for row in rows if row["verdict"] == "FALLS SHORT"]
    print(f"\n{len(short)} of {sum(1 for row in rows if row['verdict'])} requirements fall short")
    sys.exit(bool(short))


if __name__ == "__main__":
    main()
