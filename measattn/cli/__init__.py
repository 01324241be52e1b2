"""The command line: ``measattn reproduce``, ``w1``, ``lipschitz`` and ``verify``.

Needs the extra ``repro`` (typer); everything else is imported by the command that uses it.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from measattn.cli.reading import read_measure
from measattn.cli.writing import check_target

SHOWN = ("value", "lower", "upper", "gap", "p", "solver", "status", "iterations", "seconds")
INTERRUPTED = 130
"""The exit status of a program that SIGINT ended, by the convention of shells."""

NO_REPRO = """\
`measattn reproduce` runs the folder paper_repro of the source tree, which the installed library
does not contain. From a copy of the source tree run `make reproduce` (it sets itself up), or
`measattn reproduce` in its root.
"""


def main() -> None:
    """Entry point of the command ``measattn``."""
    try:
        import typer
    except ModuleNotFoundError:
        print(
            "the command line needs typer: pip install 'measattn[repro]'\n"
            "(the library itself is there: python -c 'import measattn')",
            file=sys.stderr,
        )
        sys.exit(2)
    build(typer)()


def build(typer: Any) -> Any:
    """The application; typer is passed in because it is an extra."""
    app = typer.Typer(
        help="Attention as Markov kernels on empirical measures.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )

    def print_version(asked: bool) -> None:
        if asked:
            import measattn

            typer.echo(f"measattn {measattn.__version__}")
            raise typer.Exit()

    @app.callback()
    def options(
        version: Annotated[
            bool,
            typer.Option("--version", is_eager=True, callback=print_version, help="Its version."),
        ] = False,
    ) -> None:
        """Attention as Markov kernels on empirical measures."""

    @app.command()
    def reproduce(
        ids: Annotated[
            list[str] | None, typer.Argument(metavar="[ID]...", help="Statements; default: all.")
        ] = None,
        quick: Annotated[
            bool, typer.Option("--quick", help="Smaller sizes, under three minutes.")
        ] = False,
        out: Annotated[Path, typer.Option(help="Output folder.")] = Path("build/repro"),
        fresh: Annotated[bool, typer.Option("--fresh", help="Use no earlier result.")] = False,
        seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
        list_: Annotated[bool, typer.Option("--list", help="List the statements.")] = False,
    ) -> None:
        """Check the statements about attention and write one HTML report.

        The exit status is 0 only if every verdict is the expected one.
        """
        run = _reproduction()
        if run is None:
            typer.echo(NO_REPRO, err=True)
            raise typer.Exit(2)
        flags = {"--quick": quick, "--fresh": fresh, "--list": list_}
        arguments = [*(ids or []), *(flag for flag, on in flags.items() if on)]
        raise typer.Exit(run([*arguments, "--out", str(out), "--seed", str(seed)]))

    @app.command()
    def w1(
        first: Annotated[Path, typer.Argument(metavar="A", help="Points: .npy, .npz or .csv.")],
        second: Annotated[Path, typer.Argument(metavar="B", help="Points: .npy, .npz or .csv.")],
        p: Annotated[float, typer.Option("--p", help="The order, a number of at least 1.")] = 1.0,
        tol: Annotated[float, typer.Option(help="The relative gap to certify.")] = 1e-9,
        plan: Annotated[
            Path | None,
            typer.Option(metavar="FILE.npz", help="Write rows, cols, mass, potentials u and v."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """The exact Wasserstein distance of two point clouds, with its certificate.

        A file holds one point a row; in a .csv file commas, semicolons or spaces separate its
        coordinates, and # starts a comment. An .npz archive holds `points` and, if the points are
        weighted, `weights` or `log_weights` (as written by EmpiricalMeasure.save).

        The exit status is 0 if the gap is closed, 1 if only a bracket was certified, 2 if the
        input is refused.
        """
        try:
            status = _w1(typer.echo, (first, second), p, tol, plan, as_json)
        except KeyboardInterrupt as reached:
            typer.echo(f"interrupted {reached}".rstrip(), err=True)
            # the solver's thread may be inside a library that does not look up for minutes
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise typer.Exit(status)

    @app.command()
    def lipschitz(
        text: Annotated[Path, typer.Option(metavar="FILE", help="A text, in UTF-8.")],
        model: Annotated[
            str,
            typer.Option(help="minilm, or the path of a BERT or GPT-2 checkpoint on this disk."),
        ] = "minilm",
        layer: Annotated[int, typer.Option(help="The layer, counted from 0.")] = 0,
        p: Annotated[float, typer.Option("--p", help="The order: 1, 2 or inf.")] = 1.0,
        tokens: Annotated[
            int, typer.Option(help="Use the first so many tokens of the text alone.")
        ] = 128,
        head: Annotated[
            list[int] | None, typer.Option(help="A head, from 0; may be repeated; default: all.")
        ] = None,
        block: Annotated[
            bool,
            typer.Option("--block", help="The whole block, too; slow beyond 128 tokens."),
        ] = False,
        figure: Annotated[
            Path | None, typer.Option(metavar="FILE.png", help="Draw a bar for each head.")
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """How far one layer of a model can drive the tokens of a text, head by head.

        The local Lipschitz constant in the Wasserstein distance of order p at the
        tokens that enter the layer's attention, from both sides: attained by a
        direction in which tokens move, certified by a theorem. Its class is Whole:
        these tokens are perturbed, none is split or added. A head counts with its
        part of the output map; V is its value map with that part, and κ the norm of
        the matrix of its scores.

        A head of MiniLM takes less than a second at 128 tokens, its whole block, of
        width 384, ten to twenty; at 512 tokens the block takes minutes.

        The exit status is 0 if all is certified, 1 if a constant is attained only, 2
        if the input is refused.
        """
        from measattn.cli.heads import Asked, run

        asked = Asked(model, layer, text, p, tokens, tuple(head or ()), block, figure)
        try:
            status = run(asked, typer.echo, as_json)
        except KeyboardInterrupt as reached:
            typer.echo(f"interrupted {reached}".rstrip(), err=True)
            status = INTERRUPTED
        raise typer.Exit(status)

    @app.command()
    def verify(
        file: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate: .json.")],
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """Check a certificate of a Lipschitz constant, trusting nothing in it.

        Every number is computed again with NumPy and SciPy. The exit status is 0 if all are
        accepted, 1 if one is rejected, 2 if there is no such file.
        """
        raise typer.Exit(_verify(typer.echo, file, as_json))

    return app


def _verify(echo: Callable, file: Path, as_json: bool) -> int:
    """The command `verify`; its exit status."""
    from dataclasses import asdict

    from measattn.lipschitz.checker import verify
    from measattn.lipschitz.threads import one_blas_thread

    try:
        with one_blas_thread():  # many threads lose their time on matrices of a few hundred rows
            report = verify(file)
    except OSError as error:
        echo(f"error: {error}", err=True)
        return 2
    if as_json:
        echo(json.dumps({"accepted": report.accepted, **asdict(report)}))
    else:
        echo(str(report))
    return 0 if report.accepted else 1


def _w1(
    echo: Callable,
    files: tuple[Path, Path],
    p: float,
    tol: float,
    plan: Path | None,
    as_json: bool,
) -> int:
    """The command `w1`; its exit status."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from measattn import wasserstein
    from measattn.cli.progress import followed
    from measattn.wasserstein.number import certified_digits

    status = 0
    try:
        if plan is not None:
            check_target("--plan", plan, (".npz",))
        mu, nu = map(read_measure, files)
        if mu.dimension != nu.dimension:
            raise ValueError(
                f"{files[0]} holds points of dimension {mu.dimension}, {files[1]} of dimension "
                f"{nu.dimension}: they must be of one space"
            )
        solution = followed(lambda watch: wasserstein.wp(mu, nu, p, tol=tol, watch=watch), p)
    except (ValueError, OSError) as error:
        echo(f"error: {error}", err=True)
        return 2
    except wasserstein.TransportError as error:
        echo(f"error: {error}", err=True)
        solution, status = error.solution, 1
    row: dict[str, Any] = {name: getattr(solution, name) for name in SHOWN}
    row |= {"sizes": [mu.size, nu.size], "dimension": mu.dimension}
    row |= {"trace": [bracket._asdict() for bracket in solution.trace]}
    echo(json.dumps(row) if as_json else _table(row, certified_digits(solution)))
    if plan is not None:
        u, v = solution.potentials
        try:
            _write_plan(plan, solution.plan._asdict() | {"u": u, "v": v})
        except OSError as error:
            echo(f"error: the plan could not be written: {error}", err=True)
            return 2
    return status


def _write_plan(file: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    # opened here because np.savez would add a suffix to the name
    with file.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)


def _table(row: dict[str, Any], digits: tuple[str, str, str]) -> str:
    from measattn.digits import order_name

    value, lower, upper = digits
    sizes = " and ".join(f"{size:,}" for size in row["sizes"])
    lines = [
        (f"W{order_name(row['p'])}", value or "no digit is certified"),
        ("certified", f"[{lower}, {upper}]"),
        ("gap", f"{row['gap']:.2e}"),
        ("atoms", f"{sizes}, dimension {row['dimension']}"),
        ("solver", row["solver"]),
        ("status", row["status"]),
        ("seconds", f"{row['seconds']:.2f}"),
    ]
    return "\n".join(f"{name:<10} {value}" for name, value in lines)


def _reproduction() -> Callable[[list[str]], int] | None:
    """``paper_repro.__main__.main``, from the path, the current folder or the source tree."""
    for folder in (None, Path.cwd(), Path(__file__).resolve().parents[2]):
        if folder is not None and (folder / "paper_repro" / "__main__.py").is_file():
            sys.path.insert(0, str(folder))
        try:
            return importlib.import_module("paper_repro.__main__").main
        except ModuleNotFoundError as error:
            if error.name not in {"paper_repro", "paper_repro.__main__"}:
                raise
    return None
