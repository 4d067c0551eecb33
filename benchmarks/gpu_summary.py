"""Writes the results of `scripts/test-gpu run` as Markdown that can be committed under results/ as it is."""

import datetime
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from gpu_pytest import Row
from gpu_steps import STEPS

NO_COLUMNS = ("step", "at", "outcome", "reason")
CELL_CHARACTERS = 120


def read(path: Path) -> list[Row]:
    """Read all rows of a results.jsonl."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def is_good(rows: Iterable[Row]) -> bool:
    """Return whether some step passed, and none failed."""
    rows = list(rows)
    outcomes = {row.get("outcome") for row in rows}
    return "passed" in outcomes and "failed" not in outcomes and not any("failed" in row for row in rows)


def write(path: Path, about: Row, rows: list[Row], folders: Mapping[str, str]) -> None:
    """Write the summary.

    Args:
        path: where it goes.
        about: what the kit says about itself, and the command.
        rows: all that is known so far.
        folders: folders of this machine -> what stands in their place.
    """
    parts = [heading(about, rows), table_of_steps(rows), *tables_of_results(rows)]
    parts += [section("Failed", listed(rows, "failed")), section("Left out", listed(rows, "skipped"))]
    text = "\n\n".join(filter(None, parts)) + "\n"
    for folder, name in folders.items():
        text = text.replace(folder, name)
    path.write_text(text, "utf-8")


def heading(about: Row, rows: Iterable[Row]) -> str:
    """Title, and what ran on what."""
    told = {row["what"]: row for row in rows if row.get("step") == "A" and "what" in row}
    gpu, versions = told.get("nvidia-smi", {}), told.get("versions", {})
    is_rehearsal = about["rehearsal"]
    facts = [
        "A rehearsal: the CPU in the place of the GPU, in small. No time in it means anything." if is_rehearsal else "",
        f"realesr at commit {about['commit']}{', changed' if about['is_changed'] else ''}: `{about['command']}`.",
        f"{gpu['name']}, {gpu['memory.total']}, driver {gpu['driver_version']}." if "name" in gpu else "",
        ", ".join(f"{name} {value}" for name, value in versions.items() if name not in NO_COLUMNS and name != "what"),
    ]
    title = "Rehearsal of the run on a GPU" if is_rehearsal else "Run on a GPU"
    return f"# {title}, {datetime.date.today().isoformat()}\n\n" + "\n".join(filter(None, facts))


def table_of_steps(rows: Iterable[Row]) -> str:
    """One line for each step that was come to."""
    what = {step.name: step.what for step in STEPS}
    lines = ["| step | what | outcome | good | failed | left out | s |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if "outcome" in row:
            told = row["outcome"] + (f": {cell(row['reason'])}" if row["reason"] else "")
            counts = (str(row.get(key, "")) for key in ("good", "failed_rows", "skipped_rows"))
            lines.append(
                f"| {row['step']} | {what[row['step']]} | {told} | {' | '.join(counts)} | {row['whole_s']:.1f} |"
            )
    return "\n".join(lines)


def tables_of_results(rows: Iterable[Row]) -> list[str]:
    """The figures of each step; its rows of one kind stand in one table."""
    figures = [row for row in rows if not {"outcome", "test", "failed", "skipped"} & row.keys() and len(row) > 3]
    figures = [row for row in figures if row.get("what") not in ("nvidia-smi", "versions")]
    parts = []
    for step, of_step in itertools.groupby(figures, key=lambda row: row["step"]):
        parts.append(f"## {step}")
        kinds: dict[tuple[str, ...], list[Row]] = {}
        for row in of_step:
            columns = tuple(key for key in row if key not in NO_COLUMNS)
            kinds.setdefault(columns, []).append(row)
        parts += [table(columns, of_kind) for columns, of_kind in kinds.items()]
    return parts


def table(columns: Iterable[str], rows: Iterable[Row]) -> str:
    """A table in Markdown."""
    columns = list(columns)
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell(row[key]) for key in columns) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: object) -> str:
    """A value in a table: numbers with four digits, text in one line, cut."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = re.sub(r"\s+", " ", "" if value is None else str(value)).replace("|", "\\|")
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 4] + " ..."


def listed(rows: Iterable[Row], key: str) -> list[str]:
    """Names of rows and why they failed or were left out; a reason that many share is told once."""
    found = [row for row in rows if key in row]
    counts = Counter((row["step"], row[key]) for row in found)
    lines = []
    for row in found:
        count = counts.pop((row["step"], row[key]), 0)
        if count:
            more = f" and {count - 1} more" if count > 1 else ""
            lines.append(f"- {row['step']}, {name_of(row)}{more}: " + re.sub(r"\s+", " ", row[key]))
    return lines


def name_of(row: Row) -> str:
    """Return the name of a row: the test, or its first words."""
    words = (row.get(key) for key in ("test", "what", "model", "tile_px", "options"))
    return " ".join(str(word) for word in words if word)


def section(title: str, lines: list[str]) -> str:
    """Lines below a heading, or nothing."""
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""
