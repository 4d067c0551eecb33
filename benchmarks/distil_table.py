"""Prints the scores in a log of `distil.py` as a table.

    python benchmarks/distil_table.py OUT/log.jsonl

Only the standard library is imported: it answers at once where loading torch takes long.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("psnr_to_teacher_degraded", "psnr_to_teacher_native", "psnr_to_truth", "laplacian", "laplacian_degraded")


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the scores among a log's rows as a table in Markdown."""
    lines = [_line(("who", *COLUMNS)), _line(["---"] * (1 + len(COLUMNS)))]
    for row in rows:
        if "who" in row:
            lines.append(_line([row["who"], *(f"{row[name]:.3f}" if name in row else "" for name in COLUMNS)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(table(json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()))
