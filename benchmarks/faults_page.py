"""Writes RELIABILITY.md: what was injected and what came of it, from the results, between words that stay."""

import textwrap
from pathlib import Path
from typing import Any

from faults_verdicts import FAULTS, REFUSED, RIGHT

from realesr.machine.whole_file import write_whole

WHAT = {
    "images": "Images of all formats that are read, with bytes changed, cut, swapped, repeated or zeroed",
    "jpegs": "JPEGs, whole and damaged (see below)",
    "models": "Weights: damaged .pth, .safetensors and ncnn files, and pickles made to run code or take all memory",
    "onnx": "ONNX files: damaged bytes; operators, shapes, numbers and metadata changed",
    "recipes": "Recipes of training: damaged TOML, senseless values, senseless `--set`",
    "downloads": "Downloads from servers that lie, stall, break off or never end",
    "kills": "A folder's run ended by SIGKILL, SIGTERM, SIGHUP or Ctrl-C at a random moment, and run again",
    "disks": "Disks full, read-only, without inodes; folders and files that vanish; stdout or stderr lost",
    "memory": "Little memory: `ulimit -v` from 300 to 980 MB, control groups from 100 to 480 MB",
    "engines": "Values that are no numbers, and want of memory, in the first, a middle and the last tile and strip",
    "soak": "Two thousand small images of mixed formats by one command",
}
"""Kind -> what was done, for people."""

HEAD = """\
# Reliability

What `realesr` does when something goes wrong: what is promised, what is not, and how both were tried. This page is
written by `benchmarks/bench_faults.py`, which breaks things on purpose and counts how each ends.
"""

PROMISES = """\
## What is promised

- **Whole files or none.** A file under its final name is complete. Outputs are written under another name beside it,
  and renamed at the end. A full disk, a signal or a crash leaves the file that was there before, or none.
- **The same command goes on.** Run it again after whatever ended it: finished files are kept, a large image goes on
  behind its last finished band, the others are done, and unfinished files of earlier runs are removed. The outputs are,
  byte for byte, those of a run that nothing disturbed.
- **One bad file does not stop a folder.** It gets one line that says what is wrong with it and what to do; the others
  are enlarged. The exit code is then 1.
- **Nothing is made up in silence.** An image that has lost rows is refused, unless you pass `--allow-damaged`. What was
  replaced or left out is said in a line.
- **No file runs code.** Pickles are read as data; an ONNX file may neither run for ever nor name files elsewhere.
- **Bounded time and memory.** A bad file, or a server that lies, costs seconds, and less than 1 GB.
- **Downloads are verified.** A file gets its name once its SHA-256 is right; until then it is no file of yours.
- **Too little memory is said before the first tile,** in one line with the tiles that would fit: of the memory that a
  container or `ulimit` allows, not only of what the computer has. The result never depends on what happens to be free.
- **A piece that fails is done again.** A tile or strip that does not fit goes on in smaller ones; one whose values are
  no numbers is done in float32. Where float32 gives none either, the image is refused: the weights are damaged then.
"""

NOT_PROMISED = """\
## What is not promised

- **Damage that cannot be seen.** JPEG, BMP, PNM, GIF and uncompressed TIFF hold no checksums. Where damage leaves a
  picture that could be meant, it is enlarged.
- **Power cuts.** Outputs are flushed to the disk before they get their name, so a whole file or none should be there
  afterwards; no power has been cut to see it.
- **Network shares, quotas, disks that report errors.** Disks here were small file systems in memory.
- **GPUs.** Out of memory and wrong values were injected on the CPU; no driver has been made to fail.
- **Windows and macOS.** All this ran on Linux.
- **Several training processes,** and the end of one of them.
- **Memory below what Python and the libraries take themselves,** some 100 MB, 300 MB of address space: the system may
  end the command then. What had been finished stays.
"""


def write_page(path: Path, results: dict[str, Any]) -> None:
    """Write the page from what `bench_faults.py` saved: facts, and kind -> rows, figures, faults."""
    kinds = {name: results["kinds"][name] for name in WHAT if name in results["kinds"]}
    parts = [HEAD, PROMISES, NOT_PROMISED, _table(kinds), _figures(kinds), _open_faults(kinds), _again(kinds, results)]
    write_whole(path, "\n".join(part for part in parts if part).encode())


def _table(kinds: dict[str, Any]) -> str:
    lines = [
        "## What was tried\n",
        textwrap.fill(
            'Every trial ends as "right", as "refused" (one clear line, nothing half done), or as a fault: a crash, '
            "a traceback, an error that we did not foresee, more than 10 s for one input, more than 1 GB, half an "
            "output, an unfinished file that stays, a wrong result.",
            120,
        )
        + "\n",
        "| what | trials | right | refused | faults |",
        "|---|---|---|---|---|",
    ]
    for name, kind in kinds.items():
        total = kind["rows"][-1]
        lines.append(
            f"| {WHAT[name]} | {total['trials']:,} | {total.get(RIGHT, 0):,} | {total.get(REFUSED, 0):,} | "
            f"{_faults_in_words(total)} |"
        )
    sums = {key: sum(kind["rows"][-1].get(key, 0) for kind in kinds.values()) for key in ("trials", RIGHT, REFUSED)}
    found = sum(_fault_count(kind["rows"][-1]) for kind in kinds.values())
    lines.append(f"| all | {sums['trials']:,} | {sums[RIGHT]:,} | {sums[REFUSED]:,} | {found} |")
    return "\n".join(lines) + "\n"


def _fault_count(row: dict[str, Any]) -> int:
    return sum(row.get(fault, 0) for fault in FAULTS)


def _faults_in_words(row: dict[str, Any]) -> str:
    """Return the number of faults, and of which kinds: "3 (2 hang, 1 memory)"."""
    kinds = ", ".join(f"{row[fault]} {fault}" for fault in FAULTS if row.get(fault))
    return f"{_fault_count(row)} ({kinds})" if kinds else "0"


def _figures(kinds: dict[str, Any]) -> str:
    """Return the sentences about JPEGs, kills and the soak, as far as they were measured."""
    lines = []
    if jpegs := kinds.get("jpegs", {}).get("figures"):
        lines.append(
            f"**JPEGs.** Of {jpegs['damaged']} that were cut, or of whose compressed data bytes were changed, so that "
            f"they show another picture, {jpegs['damaged_refused']} were refused; of the "
            f"{jpegs['damaged_noticed_by_libjpeg']} of them that libjpeg warns of, "
            f"{jpegs['damaged_noticed_by_libjpeg_refused']}. Of {jpegs['whole']} whole ones in the variants that "
            f"Pillow and libvips write, {jpegs['whole_refused']} were refused."
        )
    if "kills" in kinds:
        rows = kinds["kills"]["rows"][:-1]
        again = [row for row in rows if row["subject"].startswith("run again")]
        signals, runs = (
            sum(row["trials"] for row in chosen) for chosen in ([row for row in rows if row not in again], again)
        )
        lines.append(
            f"**Kills.** {signals} signals; after each, every file under a final name was compared with that of an "
            f"undisturbed run, byte for byte. {runs} runs afterwards had to complete the folder and leave nothing else."
        )
    if soak := kinds.get("soak", {}).get("figures"):
        lines.append(
            f"**Soak.** Resident memory was {soak['rss_mb_after_200']} MB after 200 images and "
            f"{soak['rss_mb_at_the_end']} MB at the end ({soak['growth_percent']:+} %); open files, "
            f"{soak['open_files_after_200']} and {soak['open_files_at_the_end']}."
        )
    for name, kind in kinds.items():
        reasons: dict[str, list[str]] = {}
        for what, why in kind["skipped"].items():
            reasons.setdefault(why, []).append(what)
        lines += [f"**Not tried** ({name}). {'; '.join(whats)}: {why}." for why, whats in reasons.items()]
    return "\n\n".join(textwrap.fill(line, 120) for line in lines) + "\n"


def _open_faults(kinds: dict[str, Any]) -> str:
    """Return a list of what is not yet as promised, each subject once."""
    seen: dict[tuple[str, str, str], int] = {}
    for name, kind in kinds.items():
        for row in kind["rows"][:-1]:
            for fault in FAULTS:
                if row.get(fault):
                    seen[name, row["subject"], fault] = row[fault]
    if not seen:
        return ""
    lines = [
        f"- {name}, {subject}: {fault}, " + (f"{count} times" if count > 1 else "once")
        for (name, subject, fault), count in seen.items()
    ]
    return "\n".join(["## Known faults\n", *lines]) + "\n"


def _again(kinds: dict[str, Any], results: dict[str, Any]) -> str:
    lines = [
        "## How to run it again\n",
        "```sh",
        "python benchmarks/bench_faults.py    # all of it",
        *(
            f"{kind['command']}    # {kind['date']}, commit {kind['commit']}, {kind['seconds']:.0f} s"
            for kind in kinds.values()
        ),
        "```\n",
        textwrap.fill(
            f"On {results['system']}, {results['cpu']}, {results['cores']} cores; every subject and every fault "
            f"is in `benchmarks/results/{results['date']}-faults.json`. Kinds run side by side.",
            120,
        ),
    ]
    return "\n".join(lines) + "\n"
