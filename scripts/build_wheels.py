"""Builds and checks the wheels of realesr; scripts/wheels starts it with its tools."""

import argparse
import sys
import tempfile
from pathlib import Path

import wheel_checks as checks
from wheel_targets import ROOT, TARGETS, BuildError, Target, build_common, compile_library, with_library

NAMES = tuple(target.name for target in TARGETS)

COLUMNS = ("target", "metadata, stable ABI", "needs", "values", "installed", "wheel")


def main() -> int:
    """Read the command line, build, and print a table; 1 where anything is wrong."""
    arguments = parser().parse_args()
    chosen = [target for target in TARGETS if target.name in (arguments.targets or NAMES)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            sdist, common = build_common(Path(folder))
            kept = arguments.out / sdist.name
            kept.write_bytes(sdist.read_bytes())
            rows.append(("source", checks.check_metadata(kept), "", "", "", kept.name))
            for target in chosen:
                print(f"{target.name} ...", file=sys.stderr, flush=True)
                rows.append(made(target, common, arguments.out, install=not arguments.no_install))
    except BuildError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    show(rows)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="scripts/wheels", description=__doc__)
    parser.add_argument("targets", nargs="*", type=target_name, metavar="TARGET", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--no-install", action="store_true", help="do not install the wheel of this machine")
    return parser


def target_name(text: str) -> str:
    """Return the name of a target; raises what argparse shows where there is none of that name."""
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"got {text}, expected one of {', '.join(NAMES)}")
    return text


def made(target: Target, common: Path, out: Path, *, install: bool) -> tuple[str, ...]:
    """Build one wheel into a folder, check it, and return its row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = with_library(common, target, compile_library(target, folder), folder)
        repaired = folder / "repaired"
        repaired.mkdir()
        wheel = checks.repair(wheel, target, repaired)
        library = checks.library_of(wheel, target, folder)
        metadata = checks.check_metadata(wheel)
        needs = checks.check_library(library, target)
        values = checks.outcome(lambda: checks.check_values(library, target, folder))
        installed = ""
        if install and target.name == checks.THIS_MACHINE:
            installed = checks.check_installation(wheel, folder)
        (out / wheel.name).write_bytes(wheel.read_bytes())
        return target.name, metadata, needs, values, installed, wheel.name


def show(rows: list[tuple[str, ...]]) -> None:
    """Print the table."""
    table = [COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
