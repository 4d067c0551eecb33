"""Judges trials of fault injection, and counts them by kind, subject and verdict."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RIGHT, REFUSED = "right", "refused"
CRASH, TRACEBACK, UNEXPECTED, HANG = "crash", "traceback", "unexpected error", "hang"
MEMORY, HALF, LEFTOVER, WRONG = "memory", "half output", "leftover", "wrong result"
FAULTS = (CRASH, TRACEBACK, UNEXPECTED, HANG, MEMORY, HALF, LEFTOVER, WRONG)
"""A process that a signal ended; Python's traceback; an error of ours that we did not foresee; more than
`LIMIT_SECONDS`; more than `LIMIT_BYTES`; a file under its final name that is not whole; an unfinished file that stays
after the next run; anything else that is not as promised."""

LIMIT_SECONDS = 10.0
LIMIT_BYTES = 1_000_000_000
_MOST_EXAMPLES = 20
_LONGEST_MESSAGE = 4000


@dataclass
class Tally:
    """The trials of one kind: how many ended how, examples of faults, figures, and what was skipped and why."""

    kind: str
    kept_folder: Path | None = None
    """Where inputs that led to a fault are copied to."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[dict[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, subject: str, verdict: str, example: str = "", source: Path | None = None) -> None:
        """Count a trial.

        Args:
            subject: what was injected, or into what.
            verdict: RIGHT, REFUSED or one of FAULTS.
            example: how to see a fault again; the first ones are kept.
            source: the input that led to it.
        """
        self.counts[subject, verdict] += 1
        if verdict not in FAULTS:
            return
        if len(self.faults) < _MOST_EXAMPLES:
            self.faults.append({"subject": subject, "verdict": verdict, "example": " ".join(example.split())[:500]})
        if source is not None and source.exists() and self.kept_folder is not None:
            self.kept_folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, self.kept_folder / f"{self.kind}-{source.name}")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row of counts for each subject, and the sum in the last; verdicts that never came are left out."""
        subjects = list(dict.fromkeys(subject for subject, _ in self.counts))
        seen = {verdict for _, verdict in self.counts}
        verdicts = [verdict for verdict in (RIGHT, REFUSED, *FAULTS) if verdict in seen]
        rows: list[dict[str, Any]] = []
        for subject in subjects:
            numbers = {verdict: self.counts[subject, verdict] for verdict in verdicts}
            rows.append({"kind": self.kind, "subject": subject, "trials": sum(numbers.values()), **numbers})
        totals = {verdict: sum(self.counts[subject, verdict] for subject in subjects) for verdict in verdicts}
        return [*rows, {"kind": self.kind, "subject": "all", "trials": sum(totals.values()), **totals}]


def judged_message(text: str) -> tuple[str, str]:
    """Return the verdict on one message of an error, and what is wrong with it: it is one clear line or a fault."""
    if "Traceback (most recent call last)" in text:
        return TRACEBACK, text
    if "unexpected " in text and "--debug shows where" in text:
        return UNEXPECTED, text
    if not text.strip() or len(text) > _LONGEST_MESSAGE or not text.isprintable():
        return WRONG, f"a message that is empty, too long or not printable: {json.dumps(text[:200])}"
    return REFUSED, text
