"""Reports what becomes of each file: words on stderr, its path or a JSON object on stdout."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.cli.estimate import LONG_SECONDS, duration_in_words, faster_advice
from realesr.cli.names import quoted_names, shown
from realesr.errors import OutputError

if TYPE_CHECKING:
    from realesr.cli.console import Messages
    from realesr.runtime.file_job import UpscaleResult


class Reports:
    """The reports of one run, with the number of files that were done, failed or skipped."""

    def __init__(self, messages: "Messages", *, json: bool, prints_targets: bool = True) -> None:
        self._messages, self._is_json, self._prints_targets = messages, json, prints_targets
        self._model: str | None = None
        self._substitution = ""
        self._counts: Counter[str] = Counter()
        self._lost_results = False

    def opened(self, model: str | None, substitution: str) -> None:
        """Report once for all files that another network stands in for the default one; `model` is the one in use."""
        self._model, self._substitution = model, substitution
        if substitution:
            from realesr.models.zoo import DEFAULT_MODEL

            self._messages.say(f"{substitution}; 'realesr models fetch {DEFAULT_MODEL}' fetches the former")

    def waiting(self, jobs: int) -> None:
        """Report that other processes have claimed all that is left."""
        self._messages.say(
            f"waiting for other processes, which enlarge the last {jobs}"
            if jobs > 1
            else "waiting for another process, which enlarges the last one"
        )

    def done(self, result: "UpscaleResult", backup: Path | None = None) -> None:
        """Report a file that was written: notices, summary, and its path or JSON on stdout.

        Args:
            result: what was done.
            backup: where the input is kept, of which the output has taken the place.
        """
        self._counts["done"] += 1
        for notice in result.notices:
            if notice == self._substitution:
                continue
            about = notice if result.source.name in notice else f"{result.source.name}: {notice}"
            self._messages.say(quoted_names(about, (result.source, result.target)))
        self._messages.say(summary(result))
        if result.whole_seconds is not None:
            name = shown(result.source.name)
            self._messages.say(f"{name}: the whole image takes {self._duration(result.whole_seconds)}")
        if backup is not None:
            self._messages.detail(f"{shown(result.source.name)}: the original is {shown(backup)}")
        if self._is_json:
            self._print_record(asdict(result) | ({} if backup is None else {"backup": backup}))
        elif self._prints_targets:
            self._print_result(result.target)

    def skipped(self, source: Path, target: Path | None, reason: str) -> None:
        """Report a file that is left out: its output exists, or it is one; then it has no target."""
        self._counts["skipped"] += 1
        reason = quoted_names(reason, (source, target) if target else (source,))
        self._messages.say(reason)
        self._print_record({"source": source, "target": target, "skipped": reason})

    def failed(self, source: Path, error: Exception, target: Path | None = None) -> None:
        """Report a file that could not be enlarged."""
        from realesr.cli.console import one_line

        self._counts["failed"] += 1
        about = (source, target) if target else (source,)
        self._messages.error(error, about)
        self._print_record({"source": source, "error": one_line(error, about)})

    def end(self) -> int:
        """Report the numbers of files, where there were several; return the exit code."""
        if self._counts.total() > 1:
            self._messages.say(", ".join(f"{self._counts[end]} {end}" for end in ("done", "failed", "skipped")))
        return 1 if self._counts["failed"] or self._lost_results else 0

    def _print_record(self, record: dict[str, object]) -> None:
        """Write a record to stdout where JSON is the output format."""
        if self._is_json:
            self._print_result({key: self._messages.renamed_in(value) for key, value in record.items()})

    def _print_result(self, result: dict[str, object] | Path) -> None:
        """Write a path or a record to stdout; where that takes no more, say so once, and go on."""
        from realesr.cli import console

        try:
            if isinstance(result, Path):
                console.result(result)
            else:
                console.json_line(result)
        except OutputError as error:
            if not self._lost_results:
                self._messages.error(error)
            self._lost_results = True

    def estimate(self, title: str, seconds: float) -> None:
        """Report how long a file will take; where that is long, a faster network with its time, and the preview."""
        preview = "; --preview does only the part with the most detail" if seconds > LONG_SECONDS else ""
        self._messages.say(f"{title}: {self._duration(seconds)}{preview}")

    def _duration(self, seconds: float) -> str:
        """Return a duration in words, with a faster network where it is long."""
        words = duration_in_words(seconds)
        advice = faster_advice(self._model, seconds) if seconds > LONG_SECONDS else None
        return words if advice is None else f"{words}; {advice}"


def summary(result: "UpscaleResult") -> str:
    """Return one line with sizes, network, engine, precision, passes, seconds and memory."""
    from realesr.cli.console import megabytes

    (width, height), (to_width, to_height) = result.input_px, result.output_px
    passes = {0: "0 passes (Lanczos alone)", 1: "1 pass"}.get(result.passes, f"{result.passes} passes")
    return (
        f"{shown(result.source.name)}  {width} x {height} -> {to_width} x {to_height}  {result.model}, "
        f"{result.engine} {result.precision} on {result.device}, {passes}, "
        f"{result.seconds:.1f} s, {megabytes(result.peak_bytes)} peak"
    )
