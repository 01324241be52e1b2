"""``python -m paper_repro [--quick] [ID …]``: check the statements and write the report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

NEEDED = {"jinja2", "matplotlib", "rich", "ziamath"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        from rich.console import Console

        from paper_repro.runner import run
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        print(
            f"paper_repro needs the package {error.name}: pip install 'measattn[repro]'",
            file=sys.stderr,
        )
        return 2
    import jax

    jax.config.update("jax_enable_x64", True)
    import measattn
    from paper_repro.catalogue import CLAIMS

    if options.list:
        for claim in CLAIMS:
            print(f"{claim.id:<28} {claim.expected:<17} {claim.title}")
        return 0
    sources = (Path(__file__).parent, Path(measattn.__file__).parent)
    try:
        return run(
            CLAIMS,
            options.ids,
            quick=options.quick,
            out=options.out,
            fresh=options.fresh,
            seed=options.seed,
            sources=sources,
            console=Console(),
        )
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper_repro",
        description="Check the statements about attention and write one HTML report.",
        epilog="Exit status: 0 if every verdict is the expected one, 1 if not, 2 for a wrong call.",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="statements to check; default: all")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under three minutes")
    parser.add_argument(
        "--out", type=Path, default=Path("build/repro"), help="output folder (build/repro)"
    )
    parser.add_argument("--fresh", action="store_true", help="use no earlier result")
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness (0)")
    parser.add_argument("--list", action="store_true", help="list the statements and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
