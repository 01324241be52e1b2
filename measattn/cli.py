"""The command line: ``measattn reproduce`` and ``measattn w1``.

Needs the extra ``repro`` (typer); everything else is imported by the command that uses it.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from measattn.measure import EmpiricalMeasure

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
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ) -> None:
        """The exact Wasserstein-1 distance of two point clouds, with its certificate.

        A file holds one point a row. An .npz archive holds `points` and, if the points are
        weighted, `weights` or `log_weights` (as written by EmpiricalMeasure.save).
        """
        import jax

        jax.config.update("jax_enable_x64", True)
        from measattn import wasserstein

        try:
            mu, nu = read_measure(first), read_measure(second)
            solution = wasserstein.w1(mu, nu)
        except (ValueError, OSError, wasserstein.TransportError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        row = {name: getattr(solution, name) for name in ("value", "lower", "upper", "gap")}
        row |= {"solver": solution.solver, "status": solution.status}
        row |= {"sizes": [mu.size, nu.size], "dimension": mu.dimension}
        typer.echo(json.dumps(row) if as_json else _table(row))

    return app


def read_measure(path: Path) -> "EmpiricalMeasure":
    """The measure in a file of points; nothing in the file is executed.

    Raises:
        ValueError: an unknown suffix, or contents that are no points.
        FileNotFoundError: no such file.
    """
    import numpy as np

    from measattn.measure import EmpiricalMeasure, weighted
    from measattn.storage import read

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return EmpiricalMeasure(_rows(path, _csv(path)))
    if suffix not in {".npy", ".npz"}:
        raise ValueError(f"{path}: points are read from .npy, .npz and .csv files, not {suffix!r}")
    try:
        content = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not readable as {suffix[1:]}: {error}") from None
    if suffix == ".npy":
        return EmpiricalMeasure(_rows(path, content))
    with content as archive:
        names = set(archive.files)
        if "log_weights" in names:
            return EmpiricalMeasure(*read(path))
        if "points" in names:
            points = _rows(path, archive["points"])
            weights = archive["weights"] if "weights" in names else None
            return EmpiricalMeasure(points) if weights is None else weighted(points, weights)
        if len(names) == 1:
            return EmpiricalMeasure(_rows(path, archive[names.pop()]))
    raise ValueError(f"{path} holds {sorted(names)}; name the array of points 'points'")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _csv(path: Path) -> Any:
    import numpy as np

    lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]

    def cells(line: str) -> list[str]:
        return line.replace(";", ",").split(",")

    def numbers(line: str) -> list[float]:
        return [float(cell) for cell in cells(line)]

    if lines and not any(_is_number(cell) for cell in cells(lines[0])):
        lines = lines[1:]  # a header
    try:
        rows = [numbers(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path}: every cell must be a number: {error}") from None
    if not rows:
        raise ValueError(f"{path} holds no points")
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ValueError(f"{path}: rows must be equally long, got lengths {lengths}")
    return np.array(rows)


def _rows(path: Path, points: Any) -> Any:
    if points.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds {points.dtype}, which are no numbers")
    if points.ndim == 1 and points.size:
        return points[:, None]
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"{path} must hold points (n, d), one a row, got shape {points.shape}")
    return points


def _table(row: dict[str, Any]) -> str:
    sizes = " and ".join(f"{size:,}" for size in row["sizes"])
    lines = [
        ("W1", f"{row['value']:.15g}"),
        ("certified", f"[{row['lower']:.15g}, {row['upper']:.15g}]"),
        ("gap", f"{row['gap']:.2e}"),
        ("atoms", f"{sizes}, dimension {row['dimension']}"),
        ("solver", row["solver"]),
        ("status", row["status"]),
    ]
    return "\n".join(f"{name:<10} {value}" for name, value in lines)


def _reproduction() -> Callable[[list[str]], int] | None:
    """``paper_repro.__main__.main``, from the path, the current folder or the source tree."""
    for folder in (None, Path.cwd(), Path(__file__).resolve().parent.parent):
        if folder is not None and (folder / "paper_repro" / "__main__.py").is_file():
            sys.path.insert(0, str(folder))
        try:
            return importlib.import_module("paper_repro.__main__").main
        except ModuleNotFoundError as error:
            if error.name not in {"paper_repro", "paper_repro.__main__"}:
                raise
    return None


if __name__ == "__main__":
    main()
