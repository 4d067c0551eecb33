"""`realesr upscale`: enlarges one file after the other; a file's failure does not stop the others."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic as clock
from time import monotonic_ns
from typing import TYPE_CHECKING

import typer

from realesr.errors import InputError, OutputError, OutputExists, UsageError
from realesr.images.output_format import DEFAULT_QUALITY, format_of
from realesr.options import FileOptions, ImageOptions, NetworkOptions

from . import options as opt
from . import stopping
from .advice import message_with_advice
from .claims import claimed, is_done_by_another, remove_abandoned_files
from .estimate import LONG_SECONDS, Estimate, duration_in_words, facts_of, faster_advice
from .files import Job, Output, find_images, job_state, make_folder, output_at, plan_jobs, without_outputs
from .manifest import Manifests, SourceFacts, lies_in_the_input, source_facts
from .names import quoted_names, shown
from .shard import Shard, shard_from

if TYPE_CHECKING:
    from realesr.api import Upscaler
    from realesr.machine.held_file import LockFile
    from realesr.runtime.file_job import UpscaleResult

    from .console import Messages

EXAMPLES = """\
realesr upscale photo.jpg                        # photo_x4.jpg beside it
realesr upscale photo.jpg -s 2.5 -o large.png    # another size and format
realesr upscale a.jpg b.png holiday -o enlarged  # many into a folder
realesr upscale holiday --recursive -o enlarged --format webp --quality 90
realesr upscale holiday -o enlarged --overwrite --strip
realesr upscale holiday -o enlarged --retry-failed  # what failed before, too
realesr upscale scans -o enlarged --shard 2/8    # computer 2 of 8
realesr upscale card.jpg --allow-damaged         # what it has lost is made up
realesr upscale poster.tif --no-resume           # keep no finished rows
realesr upscale scan.tif --page 2 -o page3.tif   # pages count from 0
realesr upscale logo.png --alpha lanczos
realesr upscale poster.tif --max-pixels 500000000
realesr upscale drawing.png -m realesrgan-x4plus-anime
realesr upscale noisy.jpg -m realesr-general-x4v3 --denoise 0.3
realesr upscale photo.jpg -m my-network.safetensors --tta
realesr upscale photo.jpg --exact                # tiles that leave no trace
realesr upscale photo.jpg --tile 192 --overlap 48 --threads 2
realesr upscale photo.jpg --engine torch --device cuda --precision fp16
realesr upscale holiday --device cuda:0,1        # two GPUs share each photo
realesr upscale holiday --engine torch --option mode=graphs
realesr upscale holiday --json --quiet           # one JSON object per file
realesr upscale photo.jpg --debug"""


ADDRESSES_TO_START = 250e6
"""Growth of the process's size until a network is open: numpy, libvips and engine winograd; measured on 2026-11-27."""


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """The command's arguments, checked."""

    paths: Sequence[Path]
    recursive: bool
    shard: Shard
    output: Output
    network: NetworkOptions
    image: ImageOptions
    file: FileOptions
    retry_failed: bool
    json: bool


def upscale(
    paths: opt.Paths,
    output: opt.Destination = None,
    recursive: opt.Recursive = False,
    shard: opt.ShardName = None,
    format_name: opt.FormatName = None,
    quality: opt.Quality = None,
    overwrite: opt.Overwrite = False,
    retry_failed: opt.RetryFailed = False,
    strip: opt.Strip = False,
    scale: opt.Scale = None,
    alpha: opt.AlphaBy = "network",
    page: opt.Page = None,
    max_pixels: opt.MaxPixels = None,
    allow_damaged: opt.AllowDamaged = False,
    no_resume: opt.NoResume = False,
    model: opt.Model = "realesrgan-x4plus",
    denoise: opt.Denoise = None,
    tta: opt.Tta = False,
    exact: opt.Exact = False,
    engine: opt.EngineName = "auto",
    device: opt.Device = "auto",
    precision: opt.PrecisionName = "auto",
    threads: opt.Threads = None,
    options: opt.EngineOptions = None,
    tile: opt.Tile = None,
    overlap: opt.Overlap = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    debug: opt.Debug = False,
) -> None:
    """Enlarge images.

    The path of each file that was written goes to stdout, everything else to stderr. Hidden images in folders are left
    out, and outputs of an earlier run (photo_x4.jpg beside photo.jpg).

    The same command goes on with a folder where it was stopped, and several at once share its images. What became of
    each is in realesr-manifest.jsonl, in the output folder or, without one, the folder that was named.

    Exit codes: 0 all done or skipped, 1 some failed or stdout took no results, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from .console import Messages, errors_reported

    messages = Messages(quiet=quiet, debug=debug)
    with errors_reported(messages):
        _check_addresses()
        request = UpscaleRequest(
            paths=paths,
            recursive=recursive,
            shard=shard_from(shard),
            output=output_at(output, many=len(paths) > 1 or os.path.isdir(paths[0]), wanted=format_name),
            network=NetworkOptions(
                model=model,
                denoise=denoise,
                engine=engine,
                device=device,
                precision=precision,
                threads=threads,
                options=opt.engine_options(options or []),
                tta=tta,
                tile_px=tile,
                overlap_px=overlap,
                exact=exact,
            ),
            image=ImageOptions(scale=scale, alpha=alpha),
            file=FileOptions(
                format=format_name,
                quality=quality,
                overwrite=overwrite,
                strip=strip,
                page=page,
                max_pixels=max_pixels,
                allow_damaged=allow_damaged,
                resume=not no_resume,
            ),
            retry_failed=retry_failed,
            json=json,
        )
        code = UpscaleRun(request, messages).run()
    raise typer.Exit(code)


def _check_addresses() -> None:
    """Raise OutOfMemory where a limit of this process leaves too few addresses for what every upscale loads."""
    from realesr.machine.memory import check_addresses

    check_addresses(ADDRESSES_TO_START, "realesr upscale")


class UpscaleRun:
    """One run of the command, with the number of files that were done, failed or skipped."""

    def __init__(self, request: UpscaleRequest, messages: "Messages") -> None:
        self._request = request
        self._messages = messages
        self._counts: Counter[str] = Counter()
        self._lost_results = False
        self._started_ns = monotonic_ns()
        output = request.output.path if request.output.is_folder else None
        folders = {path for path in request.paths if os.path.isdir(path)}
        self._manifests = Manifests(output, folders, request.shard, messages.say)

    def run(self) -> int:
        """Enlarge every file; return the exit code."""
        request = self._request
        output_folder = request.output.path if request.output.is_folder else None
        found, failures = find_images(request.paths, recursive=request.recursive, output=output_folder)
        for path, error in failures:
            self._report_failed(path, error)
        if found:
            scale = request.image.scale or facts_of(request.network.model)[0]
            found, outputs = without_outputs(found, scale=scale, output=request.output)
            planned = plan_jobs(found, scale=scale, output=request.output)
            jobs = [job for image, job in zip(found, planned, strict=True) if request.shard.has(image)]
            check_quality(jobs, request.file.quality)
            for path, reason in outputs:
                self._report_skipped(path, None, reason)
            remove_abandoned_files(job.target.parent for job in jobs)
            self._enlarge([job for job in jobs if not self._skips(job)])
        if self._counts.total() > 1:
            self._messages.say(", ".join(f"{self._counts[end]} {end}" for end in ("done", "failed", "skipped")))
        return 1 if self._counts["failed"] or self._lost_results else 0

    def _skips(self, job: Job) -> bool:
        """Return whether a job is skipped, cannot be done or has failed before, and report why."""
        try:
            reason = job_state(job, overwrite=self._request.file.overwrite)
        except (OutputError, OSError) as error:
            self._fail(job, error)
            return True
        if reason is None:
            return self._has_failed_before(job)
        self._skip(job, reason)
        return True

    def _is_left_to_others(self, job: Job, claim: "LockFile") -> bool:
        """Return whether another process has done a job, or failed at it, since this run began, and report it."""
        age_ns = monotonic_ns() - self._started_ns
        if is_done_by_another(job, claim, overwrite=self._request.file.overwrite, age_ns=age_ns):
            self._skip(job, f"{job.target} is done by another process: skipped")
            return True
        self._manifests.of(job).refresh()
        return self._has_failed_before(job, since_this_run=True)

    def _has_failed_before(self, job: Job, *, since_this_run: bool = False) -> bool:
        """Return whether a job failed, and would again, and report it."""
        if self._request.retry_failed and not since_this_run:
            return False
        reason = self._manifests.of(job).earlier_failure(job, self._reading(), since_the_first=since_this_run)
        if reason is None:
            return False
        error = InputError(f"failed before: {reason}; --retry-failed tries it again")
        self._report_failed(job.source, error, job.target)
        return True

    def _reading(self) -> dict[str, object]:
        """Return the options that decide whether a file can be read."""
        file = self._request.file
        return {"page": file.page, "max_pixels": file.max_pixels, "allow_damaged": file.allow_damaged}

    def _enlarge(self, jobs: Sequence[Job]) -> None:
        """Open the network, and enlarge one file after the other."""
        if not jobs:
            self._manifests.begin(jobs)
            return
        with open_upscaler(self._request.network, self._messages) as upscaler:
            if upscaler.choice:
                self._messages.say(upscaler.choice)
            self._manifests.begin(jobs)
            for number, (job, claim) in enumerate(claimed(jobs, self._report_waiting), start=1):
                with claim:
                    name = shown(job.source.name)
                    title = f"{name} ({number} of {len(jobs)})" if len(jobs) > 1 else name
                    if not self._is_left_to_others(job, claim):
                        self._enlarge_one(upscaler, job, title)

    def _enlarge_one(self, upscaler: "Upscaler", job: Job, title: str) -> None:
        """Enlarge one file, and report how it ended."""
        facts = source_facts(job.source)
        try:
            make_folder(job.target.parent)
            with self._messages.progress(title) as show_progress:
                estimate = Estimate(lambda seconds: self._report_estimate(title, seconds), clock)

                def on_progress(done_px: int, total_px: int) -> None:
                    stopping.check()
                    show_progress(done_px, total_px)
                    estimate(done_px, total_px)

                result = upscaler.upscale_file(
                    job.source,
                    job.target,
                    image=self._request.image,
                    file=self._file_options(job),
                    on_progress=on_progress,
                )
        except OutputExists as error:
            self._skip(job, message_with_advice(error, (job.source, job.target)))
        except Exception as error:  # one file must not stop the others
            stopping.check()  # an interrupted lock raises whatever it likes
            self._fail(job, error, facts)
        else:
            self._manifests.of(job).add_done(job, facts, result.seconds)
            self._report_done(result)

    def _file_options(self, job: Job) -> FileOptions:
        """Return the options of one file, without the quality where its format has none."""
        file = self._request.file
        return file if format_of(job.target) in DEFAULT_QUALITY else replace(file, quality=None)

    def _skip(self, job: Job, reason: str) -> None:
        """Report a job whose output is there, and correct its manifest."""
        self._manifests.of(job).add_found(job)
        self._report_skipped(job.source, job.target, reason)

    def _fail(self, job: Job, error: Exception, facts: SourceFacts | None = None) -> None:
        """Report a job that has failed, and write it into its manifest."""
        from .console import one_line

        reason, retry = one_line(error, (job.source, job.target)), not lies_in_the_input(error)
        facts = facts or source_facts(job.source)
        self._manifests.of(job).add_failed(job, facts, reason, retry=retry, reading=self._reading())
        self._report_failed(job.source, error, job.target)

    def _report_waiting(self, jobs: int) -> None:
        """Report that other processes have claimed all that is left."""
        self._messages.say(
            f"waiting for other processes, which enlarge the last {jobs}"
            if jobs > 1
            else "waiting for another process, which enlarges the last one"
        )

    def _report_done(self, result: "UpscaleResult") -> None:
        """Report a file that was written: notices, summary, and its path or JSON on stdout."""
        self._counts["done"] += 1
        for notice in result.notices:
            about = notice if result.source.name in notice else f"{result.source.name}: {notice}"
            self._messages.say(quoted_names(about, (result.source, result.target)))
        self._messages.say(summary(result))
        self._print_result(asdict(result) if self._request.json else result.target)

    def _report_skipped(self, source: Path, target: Path | None, reason: str) -> None:
        """Report a file that is left out: its output exists, or it is one; then it has no target."""
        self._counts["skipped"] += 1
        reason = quoted_names(reason, (source, target) if target else (source,))
        self._messages.say(reason)
        self._print_record({"source": source, "target": target, "skipped": reason})

    def _report_failed(self, source: Path, error: Exception, target: Path | None = None) -> None:
        """Report a file that could not be enlarged."""
        from .console import one_line

        self._counts["failed"] += 1
        about = (source, target) if target else (source,)
        self._messages.error(error, about)
        self._print_record({"source": source, "error": one_line(error, about)})

    def _print_record(self, record: dict[str, object]) -> None:
        """Write a record to stdout where JSON is the output format."""
        if self._request.json:
            self._print_result(record)

    def _print_result(self, result: dict[str, object] | Path) -> None:
        """Write a path or a record to stdout; where that takes no more, say so once, and go on."""
        from . import console

        try:
            if isinstance(result, Path):
                console.result(result)
            else:
                console.json_line(result)
        except OutputError as error:
            if not self._lost_results:
                self._messages.error(error)
            self._lost_results = True

    def _report_estimate(self, title: str, seconds: float) -> None:
        """Report how long a file will take, and a faster network where that is long."""
        self._messages.say(f"{title}: {duration_in_words(seconds)}")
        if seconds > LONG_SECONDS:
            advice = faster_advice(self._request.network.model)
            if advice is not None:
                self._messages.say(advice)


def check_quality(jobs: Sequence[Job], quality: int | None) -> None:
    """Raise UsageError where there is a quality and no output's format has one."""
    if quality is not None and jobs and not any(format_of(job.target) in DEFAULT_QUALITY for job in jobs):
        raise UsageError(
            f"got --quality {quality}, but {jobs[0].target} is in a lossless format: "
            "leave it out, or choose --format jpeg, webp or avif"
        )


def open_upscaler(network: NetworkOptions, messages: "Messages") -> "Upscaler":
    """Open the network, and show the progress of a download."""
    from realesr.api import Upscaler

    with messages.download(network.model) as on_download:
        return Upscaler.from_options(network, on_download)


def summary(result: "UpscaleResult") -> str:
    """Return one line with sizes, network, engine, precision, passes, seconds and memory."""
    from .console import megabytes

    (width, height), (to_width, to_height) = result.input_px, result.output_px
    passes = "1 pass" if result.passes == 1 else f"{result.passes} passes"
    return (
        f"{shown(result.source.name)}  {width} x {height} -> {to_width} x {to_height}  {result.model}, "
        f"{result.engine} {result.precision} on {result.device}, {passes}, "
        f"{result.seconds:.1f} s, {megabytes(result.peak_bytes)} peak"
    )
