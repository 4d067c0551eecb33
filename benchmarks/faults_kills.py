"""Ends the command at random moments by SIGKILL, SIGTERM, SIGHUP and SIGINT, and runs it again.

Half of the rounds run a network, the others repeat pixels; the folder holds small images and a larger one. After every
signal each file under a final name must be, byte for byte, what an undisturbed run writes. After every fifth signal the
command is left alone: it must complete the folder, and leave nothing beside the outputs. Ctrl-C while Python itself
starts, before any code of realesr, ends in Python's traceback; that is none of ours.
"""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from faults_commands import COMMAND, DRY_RUN, NETWORK, run_watched
from faults_image_files import photo, saved
from faults_verdicts import CRASH, HALF, HANG, LEFTOVER, RIGHT, TRACEBACK, UNEXPECTED, WRONG, Tally
from PIL import Image

import realesr

TRIALS = 200
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_KILLS_BEFORE_RERUN = 5
_END_SECONDS = 10.0
MANIFEST = "realesr-manifest.jsonl"
"""Beside the outputs, a line for each file; a killed run may leave its last line cut, the next one completes it."""


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Send `trials` signals, half of them while a network runs, and count what is left."""
    dice = random.Random(seed)
    inputs = folder / "in"
    inputs.mkdir()
    for number, side in enumerate((24, 40, 160, 24, 64, 220)):
        suffix, kind = (".png", "PNG") if number % 2 else (".tif", "TIFF")
        (inputs / f"{number}{suffix}").write_bytes(saved(Image.fromarray(photo(side, side + 8)), kind))
    half = trials // 2
    for name, network, count in (("pixels repeated", DRY_RUN, trials - half), ("network", NETWORK, half)):
        if count:
            _Round(tally, dice, folder, name, network).run(count)


class _Round:
    """Signals to one way of running the command."""

    def __init__(self, tally: Tally, dice: random.Random, folder: Path, name: str, network: tuple[str, ...]) -> None:
        self._tally, self._dice, self._name = tally, dice, name
        self._output, whole = folder / f"out {name}", folder / f"whole {name}"
        self._command = [*COMMAND, "upscale", str(folder / "in"), "--quiet", *network, "-o"]
        began = time.monotonic()
        subprocess.run([*self._command, str(whole)], check=True, stdout=subprocess.DEVNULL)
        self._seconds = time.monotonic() - began
        self._expected = {path.name: path.read_bytes() for path in whole.iterdir() if path.name != MANIFEST}

    def run(self, trials: int) -> None:
        """Send `trials` signals; complete the folder now and then, and at last."""
        for number in range(1, trials + 1):
            chosen = SIGNALS[number % len(SIGNALS)]
            verdict, example = self._kill(chosen)
            self._tally.add(f"{chosen.name}, {self._name}", verdict, f"trial {number}: {example}")
            if number % _KILLS_BEFORE_RERUN == 0 or number == trials:
                verdict, example = self._complete()
                self._tally.add(f"run again, {self._name}", verdict, f"after trial {number}: {example}")
                shutil.rmtree(self._output, ignore_errors=True)

    def _kill(self, chosen: signal.Signals) -> tuple[str, str]:
        wait_seconds = self._dice.uniform(0, self._seconds)

        def send(process: "subprocess.Popen[bytes]") -> None:
            time.sleep(wait_seconds)
            process.send_signal(chosen)

        ended = run_watched(
            [*self._command, str(self._output)],
            limit_seconds=_END_SECONDS + wait_seconds,
            limits=_listen_to_ctrl_c,
            on_start=send,
        )
        about = f"{chosen.name} after {wait_seconds:.2f} s, code {ended.code}: {ended.err[-300:]}"
        if wrong := self._wrong_files():
            return HALF, f"{wrong}; {about}"
        if ended.fault == HANG:
            return HANG, about
        if "Traceback" in ended.err:
            return RIGHT if _is_before_our_code(ended.err) else TRACEBACK, about
        if "unexpected " in ended.err:
            return UNEXPECTED, about
        allowed = {0, 128 + chosen, -chosen}  # done before; told and tidy; not yet listening, or SIGKILL
        if ended.code not in allowed:
            return CRASH if ended.code < 0 else WRONG, about
        return RIGHT, ""

    def _complete(self) -> tuple[str, str]:
        ended = run_watched([*self._command, str(self._output)], limit_seconds=60 + 10 * self._seconds)
        if ended.fault or ended.code:
            return ended.fault or WRONG, f"code {ended.code}: {ended.err[-300:]}"
        if wrong := self._wrong_files():
            return HALF, wrong
        names = {str(path.relative_to(self._output)) for path in self._output.rglob("*")}
        if missing := set(self._expected) - names:
            return WRONG, f"not done: {sorted(missing)}"
        if left := names - set(self._expected) - {MANIFEST}:
            return LEFTOVER, f"{sorted(left)}"
        if MANIFEST in names and (undone := self._not_recorded()):
            return WRONG, f"not recorded as done: {undone}"
        return RIGHT, ""

    def _not_recorded(self) -> list[str]:
        """Return the outputs that the manifest does not say to be done."""
        done = set()
        for line in (self._output / MANIFEST).read_text().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("state") == "done":
                    done.add(Path(record["target"]).name)
        return sorted(set(self._expected) - done)

    def _wrong_files(self) -> str:
        """Return the names of files that are not as an undisturbed run writes them, or nothing."""
        found = [self._output / name for name in self._expected if (self._output / name).exists()]
        return ", ".join(path.name for path in found if path.read_bytes() != self._expected[path.name])


def _is_before_our_code(words: str) -> bool:
    """Return whether Ctrl-C met Python while it started: a traceback of its own, without a file of ours."""
    return "KeyboardInterrupt" in words and str(Path(realesr.__file__).parent) not in words


def _listen_to_ctrl_c() -> None:
    """Do not hand on that a job in the background ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
