"""Figures for Prometheus, in its text format (version 0.0.4)."""

from collections import Counter
from collections.abc import Iterator, Mapping

import psutil

MEDIA_TYPE = "text/plain; version=0.0.4"

GAUGES = {
    "queued": "Jobs that wait.",
    "uploading": "Uploads that are being read.",
    "running": "Jobs that run.",
    "kept": "Jobs whose files are kept, those that wait and run included.",
}
COUNTERS = {
    "done": "Jobs done.",
    "failed": "Jobs failed.",
    "cancelled": "Jobs cancelled.",
    "refused": "Uploads refused because the queue was full.",
    "pixels": "Pixels read by networks.",
    "seconds": "Seconds of work on jobs done.",
}
"""Name in `JobQueue.counts`, there with `_total` -> help."""


def metrics_text(counts: Mapping[str, float], answers: Counter[int]) -> str:
    """Return the text.

    Args:
        counts: `JobQueue.counts`.
        answers: HTTP status -> how often it was answered.
    """
    lines = [line for name, help in GAUGES.items() for line in one(f"jobs_{name}", "gauge", help, counts[name])]
    for name, help in COUNTERS.items():
        base = name if name in ("pixels", "seconds") else f"jobs_{name}"
        lines += one(f"{base}_total", "counter", help, counts[f"{name}_total"])
    lines += one(
        "worker_restarts_total",
        "counter",
        "Processes started in the place of one that died.",
        counts["worker_restarts"],
    )
    lines += heading("http_answers_total", "counter", "Answers by their HTTP status.")
    lines += [f'realesr_http_answers_total{{status="{status}"}} {count}' for status, count in sorted(answers.items())]
    lines += one("resident_bytes", "gauge", "Memory of the server's process.", psutil.Process().memory_info().rss)
    return "\n".join(lines) + "\n"


def one(name: str, kind: str, help: str, value: float) -> list[str]:
    """Return the lines of a metric that has one value."""
    return [*heading(name, kind, help), f"realesr_{name} {value:.15g}"]


def heading(name: str, kind: str, help: str) -> Iterator[str]:
    """Yield the lines that say what a metric is."""
    yield f"# HELP realesr_{name} {help}"
    yield f"# TYPE realesr_{name} {kind}"
