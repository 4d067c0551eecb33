"""Writes the figures of bench_server.py as Markdown that can be committed under results/ as it is."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faults_verdicts import FAULTS, REFUSED, RIGHT
from server_load import CLIENTS, LEAST_THROUGHPUT, MOST_GROWTH, MOST_REFUSAL_MS, QUEUE
from server_overhead import MOST_MS, MOST_SHARE

from realesr.machine.whole_file import write_whole

HOLDS = {True: "yes", False: "**no**"}


def write_summary(path: Path, results: dict[str, Any]) -> None:
    """Write what `bench_server.py` has saved: facts of the machine, and the parts that there are."""
    parts: dict[str, Any] = results["parts"]
    told = [_heading(results)]
    for name, part in (("overhead", _overhead), ("load", _load), ("faults", _faults)):
        if name in parts:
            told.append(f"{part(parts[name])}\n`{parts[name]['command']}`, {parts[name]['seconds']:.0f} s.\n")
    write_whole(path, "\n".join(told).encode())


def _heading(results: dict[str, Any]) -> str:
    quick = "\nA quick run: it shows that all runs, and its times mean nothing.\n" if results["quick"] else ""
    return (
        f"# realesr serve, {results['date']}\n\nCommit {results['commit']}. {results['cpu']}, "
        f"{results['cores']} cores, {results['system']}. The clients run on the same cores.\n{quick}"
    )


def _overhead(part: dict[str, Any]) -> str:
    """Tell the overhead."""
    width, height = part["photo_px"]
    words = (
        f"## Overhead\n\nA POST of a JPEG of {width} x {height} px, against `Upscaler.upscale_file` in the client's "
        f"process with the same options: medians of {part['rows'][0]['runs']}, in turn. "
        f"Allowed are {MOST_SHARE:.0%} and {MOST_MS:g} ms at most.\n\n"
    )
    columns = ("result", "call, ms", "POST, ms", "more, ms", "more, %", "median of the differences, ms", "holds")
    keys = ("call_ms", "post_ms", "more_ms", "more_percent", "median_of_differences_ms")
    rows = [[row["format"], *(f"{row[key]:.1f}" for key in keys), HOLDS[row["holds"]]] for row in part["rows"]]
    return words + table(columns, rows)


def _load(part: dict[str, Any]) -> str:
    """Tell the load."""
    rows: list[dict[str, Any]] = part["rows"]
    words = (
        f"## Load\n\n{CLIENTS} clients for {rows[0]['seconds']:g} s, after one client for a quarter of that. Small "
        f"JPEGs, realesr-general-x4v3, `--queue {QUEUE}`. After a 503 a client waits as Retry-After says, "
        "but 1.5 s at most. "
        "A 503's time is the client's, from the beginning of its connection.\n\n"
    )
    one, many = "one_client_per_s", f"{CLIENTS}_clients_per_s"
    lines: list[tuple[str, Any]] = [
        ("images a second, one client", lambda row: f"{row[one]:.1f}"),
        (f"images a second, {CLIENTS} clients", lambda row: f"{row[many]:.1f}"),
        (f"at least {LEAST_THROUGHPUT:g} of one client's", lambda row: HOLDS[row["throughput_holds"]]),
        ("answers", lambda row: ", ".join(f"{status}: {count:,}" for status, count in row["answers"].items())),
        ("no error but 503", lambda row: HOLDS[row["errors_hold"]]),
        ("503, ms: median", lambda row: f"{row['refusal_ms_median']:.1f}"),
        ("503, ms: 99 %", lambda row: f"{row['refusal_ms_99']:.1f}"),
        ("503, ms: most", lambda row: f"{row['refusal_ms_most']:.1f}"),
        (f"all 503 in less than {MOST_REFUSAL_MS:g} ms", lambda row: HOLDS[row["refusals_hold"]]),
        ("memory (PSS of all processes), MB, first half", lambda row: f"{row['pss_mb_first_half']:.1f}"),
        ("memory, MB, second half", lambda row: f"{row['pss_mb_second_half']:.1f}"),
        (f"within {MOST_GROWTH:.0%}", lambda row: HOLDS[row["memory_holds"]]),
        ("exit code; files left", lambda row: f"{row['exit_code']}; {len(row['left'])}"),
    ]
    return words + table(["", *(f"engine {row['engine']}" for row in rows)], [[n, *map(f, rows)] for n, f in lines])


def _faults(part: dict[str, Any]) -> str:
    """Tell the faults: a row for each subject, figures, and every fault that was found."""
    kinds: dict[str, Any] = part["kinds"]
    rows, notes = [], []
    for name, kind in kinds.items():
        for row in kind["rows"]:
            faults = sum(row.get(verdict, 0) for verdict in FAULTS)
            counts = (row["trials"], row.get(RIGHT, 0), row.get(REFUSED, 0), faults)
            rows.append([name, row["subject"], *(f"{count:,}" for count in counts)])
        notes += [f"- {name}: {_told(kind['figures'])}; {kind['seconds']:.0f} s." if kind["figures"] else ""]
        notes += [f"- {name}, skipped: {what}: {why}" for what, why in kind["skipped"].items()]
        notes += [f"- **{name}, {one['subject']}: {one['verdict']}**: {one['example']}" for one in kind["faults"]]
    words = (
        '## Faults\n\n"Right" is what was asked for; "refused" is a 4xx, 503 or 507 with one clear line, a closed '
        "connection where nothing better can be said, or a job that failed with its reason.\n\n"
    )
    return (
        words
        + table(("kind", "what", "trials", "right", "refused", "faults"), rows)
        + "\n"
        + "\n".join(filter(None, notes))
        + "\n"
    )


def _told(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
