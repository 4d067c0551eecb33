"""Runs `realesr upscale`: enlarges one file after the other; a file's failure does not stop the others."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic as clock
from time import monotonic_ns
from typing import TYPE_CHECKING

from realesr.cli import stopping
from realesr.cli.advice import ADVICE, message_with_advice
from realesr.cli.estimate import Estimate, facts_of, loaded_model
from realesr.cli.files import Found, Job, Output, find_images, job_state, make_folder, plan_jobs, without_outputs
from realesr.cli.names import shown
from realesr.errors import InputError, LargeEnough, OutputError, OutputExists, RealesrError, UsageError
from realesr.images.info import OutputFormat
from realesr.images.output_format import DEFAULT_QUALITY, PREVIEW_ENDING, format_of
from realesr.options import FileOptions, ImageOptions, NetworkOptions

from .claims import claimed, is_done_by_another, remove_abandoned_files
from .in_place import InPlace, in_place_state, plan_in_place, replace_input
from .manifest import Manifests, SourceFacts, lies_in_the_input, source_facts
from .naming import NameTemplate, SizeRule, named_images
from .preview import check_regions, named_as_previews, with_region
from .reports import Reports
from .shard import Shard

if TYPE_CHECKING:
    from realesr.api import Upscaler
    from realesr.cli.console import Messages
    from realesr.machine.held_file import LockFile
    from realesr.models.weights import Weights
    from realesr.progress import AmountCallback
    from realesr.runtime.file_job import UpscaleResult


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
    name: NameTemplate | None = None
    in_place: InPlace | None = None
    is_preview: bool = False
    """Whether only a region is enlarged: that of `file`, or the one with the most detail."""
    prints_targets: bool = True
    """Whether the paths of outputs go to stdout; not where the output itself goes there."""


class UpscaleRun:
    """One run of the command."""

    def __init__(self, request: UpscaleRequest, messages: "Messages") -> None:
        self._request = request
        self._messages = messages
        self._reports = Reports(messages, json=request.json, prints_targets=request.prints_targets)
        self._substitution = ""
        loaded_model.cache_clear()  # an earlier run of this process may have failed before it opened the network
        self._started_ns = monotonic_ns()
        output = request.output.path if request.output.is_folder else None
        folders = {path for path in request.paths if os.path.isdir(path)}
        if request.is_preview:  # its outputs are none of the folder's
            output, folders = None, set()
        self._manifests = Manifests(
            output,
            folders,
            Shard() if request.in_place else request.shard,  # one file, that each share and each later run knows
            messages.say,
            is_beside_sources=request.in_place is not None,
        )

    def run(self) -> int:
        """Enlarge every file; return the exit code."""
        request = self._request
        output_folder = request.output.path if request.output.is_folder else None
        if request.in_place:
            output_folder = request.in_place.backup
        found, failures = find_images(request.paths, recursive=request.recursive, output=output_folder)
        for path, error in failures:
            self._reports.failed(path, error)
        if found:
            jobs = [job for job in self._planned(found) if not self._skips(job)]
            for job in jobs:
                self._messages.detail(f"{shown(job.source)} becomes {shown(job.target)}")
            self._enlarge(jobs)
        return self._reports.end()

    def _planned(self, found: list[Found]) -> list[Job]:
        """Return the jobs of this run's share of the images, and report the images that are outputs."""
        found = self._named(found)
        request = self._request
        ending = request.image.ending or f"x{facts_of(request.network.model)[0]:g}"
        if request.is_preview:
            found, ending = named_as_previews(found), ending + PREVIEW_ENDING
        found, outputs = without_outputs(found, ending=ending, output=request.output)
        if request.in_place:
            planned = plan_in_place(found, request.in_place)
        else:
            planned = plan_jobs(found, ending=ending, output=request.output)
        jobs = [job for image, job in zip(found, planned, strict=True) if request.shard.has(image)]
        check_quality(jobs, request.file.quality)
        check_regions(jobs, request.file)
        for path, reason in outputs:
            self._reports.skipped(path, None, reason)
        remove_abandoned_files(job.target.parent for job in jobs)
        return jobs

    def _named(self, found: list[Found]) -> list[Found]:
        """Return the images with the names of their outputs, where a template gives them; report those not read."""
        request = self._request
        if request.name is None:
            return found
        if "model" in request.name.fields:
            request = self._request = replace(request, network=self._decided_network())
        assert request.name is not None
        rule = SizeRule(int(facts_of(request.network.model)[0]), request.image, request.file)
        model = request.network.model or ""
        named, failures = named_images(found, request.name, model=model, wanted=request.output.format, rule=rule)
        for path, error in failures:
            self._reports.failed(path, error)
        return named

    def _decided_network(self) -> NetworkOptions:
        """Return the network with the name of the one that will run; where it is another than the default, say so."""
        from realesr.runtime.default_network import with_network

        with _download_shown(self._request.network, self._messages) as on_download:
            network, self._substitution = with_network(self._request.network, on_download)
        return network

    def _skips(self, job: Job) -> bool:
        """Return whether a job is skipped, cannot be done or has failed before, and report why."""
        try:
            if job.is_in_place:
                reason = in_place_state(job, self._manifests.of(job), overwrite=self._request.file.overwrite)
            else:
                reason = job_state(job, overwrite=self._request.file.overwrite)
        except (InputError, OutputError, OSError) as error:
            self._fail(job, error)
            return True
        if reason is None:
            return self._has_failed_before(job) or self._is_large_enough(job)
        self._skip(job, reason)
        return True

    def _is_large_enough(self, job: Job) -> bool:
        """Return whether an image has the size that is asked for, and report it: it needs no network."""
        if self._request.image.size is None or self._request.is_preview:
            return False
        from realesr.images.reader import open_with
        from realesr.runtime.pipeline import check_target_size

        try:
            with open_with(job.source, self._request.file) as reader:
                check_target_size(reader.info, self._request.image, str(job.source))
        except LargeEnough as error:
            self._skip_large(job, source_facts(job.source), error)
            return True
        except RealesrError:
            return False  # told when it is its turn
        return False

    def _is_left_to_others(self, job: Job, claim: "LockFile") -> bool:
        """Return whether another process has done a job, or failed at it, since this run began, and report it."""
        age_ns = monotonic_ns() - self._started_ns
        self._manifests.of(job).refresh()
        if job.is_in_place:
            is_done = self._manifests.of(job).was_written(job, since_the_first=True)
        else:
            is_done = is_done_by_another(job, claim, overwrite=self._request.file.overwrite, age_ns=age_ns)
        if is_done:
            self._skip(job, f"{job.target} is done by another process: skipped")
            return True
        return self._has_failed_before(job, since_this_run=True)

    def _has_failed_before(self, job: Job, *, since_this_run: bool = False) -> bool:
        """Return whether a job failed, and would again, and report it."""
        if self._request.retry_failed and not since_this_run:
            return False
        reason = self._manifests.of(job).earlier_failure(job, self._reading(), since_the_first=since_this_run)
        if reason is None:
            return False
        error = InputError(f"failed before: {reason}; --retry-failed tries it again")
        self._reports.failed(job.source, error, job.target)
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
            upscaler.substitution = self._substitution or upscaler.substitution
            self._reports.opened(upscaler.options.model, upscaler.substitution)
            if upscaler.choice:
                self._messages.say(upscaler.choice)
            self._manifests.begin(jobs)
            for number, (job, claim) in enumerate(claimed(jobs, self._reports.waiting), start=1):
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
                estimate = Estimate(
                    lambda seconds: self._reports.estimate(title, seconds), clock, lambda: upscaler.seconds_per_px
                )

                def on_progress(done_px: int, total_px: int) -> None:
                    stopping.check()
                    show_progress(done_px, total_px)
                    estimate(done_px, total_px)

                def enlarge(target: Path, file: FileOptions) -> "UpscaleResult":
                    return upscaler.upscale_file(
                        job.source, target, image=self._request.image, file=file, on_progress=on_progress
                    )

                if job.is_in_place:
                    result = replace_input(job, enlarge, self._request.file, self._manifests.of(job))
                else:
                    file = with_quality_of(self._request.file, format_of(job.target))
                    result = enlarge(job.target, with_region(file, job.source) if self._request.is_preview else file)
        except LargeEnough as error:
            self._skip_large(job, facts, error)
        except OutputExists as error:
            self._skip(job, message_with_advice(error, (job.source, job.target)))
        except Exception as error:  # one file must not stop the others
            stopping.check()  # an interrupted lock raises whatever it likes
            self._fail(job, error, facts)
        else:
            if not job.is_in_place:  # its line stands in the manifest already
                self._manifests.of(job).add_done(job, facts, result.seconds)
            self._reports.done(result, job.backup)

    def _skip(self, job: Job, reason: str) -> None:
        """Report a job whose output is there, and correct its manifest."""
        self._manifests.of(job).add_found(job)
        self._reports.skipped(job.source, job.target, reason)

    def _skip_large(self, job: Job, facts: SourceFacts, error: LargeEnough) -> None:
        """Report a job whose source has the size that is asked for, and write it into its manifest."""
        advice = "" if error.option is None else f" ({ADVICE[error.option]})"
        reason = f"{error}: skipped{advice}"
        self._manifests.of(job).add_skipped(job, facts, reason)
        self._reports.skipped(job.source, job.target, reason)

    def _fail(self, job: Job, error: Exception, facts: SourceFacts | None = None) -> None:
        """Report a job that has failed, and write it into its manifest."""
        from realesr.cli.console import one_line

        reason, retry = one_line(error, (job.source, job.target)), not lies_in_the_input(error)
        facts = facts or source_facts(job.source)
        self._manifests.of(job).add_failed(job, facts, reason, retry=retry, reading=self._reading())
        self._reports.failed(job.source, error, job.target)


def check_quality(jobs: Sequence[Job], quality: int | None) -> None:
    """Raise UsageError where there is a quality and no output's format has one."""
    if quality is not None and jobs and not any(format_of(job.target) in DEFAULT_QUALITY for job in jobs):
        raise UsageError(
            f"got --quality {quality}, but {jobs[0].target} is in a lossless format: "
            "leave it out, or choose --format jpeg, webp or avif"
        )


def with_quality_of(file: FileOptions, fmt: OutputFormat | None) -> FileOptions:
    """Return the options of one file, without the quality where its format has none."""
    return file if fmt in DEFAULT_QUALITY else replace(file, quality=None)


def open_upscaler(network: NetworkOptions, messages: "Messages") -> "Upscaler":
    """Open the network, and show the progress of a download."""
    from realesr.api import Upscaler

    with _download_shown(network, messages) as on_download:
        try:
            return Upscaler.from_options(network, on_download, model=_model_of_a_file(network))
        finally:
            loaded_model.cache_clear()


def _model_of_a_file(network: NetworkOptions) -> "Weights | Path | None":
    """Return the network that the names of the outputs have been planned with; None where that took no file."""
    from realesr.models.zoo import ZOO

    is_blend = network.denoise is not None or network.denoise_with is not None
    return None if network.model is None or network.model in ZOO or is_blend else loaded_model(network.model)


def _download_shown(network: NetworkOptions, messages: "Messages") -> AbstractContextManager["AmountCallback"]:
    """Return the context in which the download of a network is shown."""
    from realesr.models.zoo import DEFAULT_MODEL

    return messages.download(network.model or DEFAULT_MODEL)
