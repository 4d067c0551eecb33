"""Keeps a folder's manifest: a line for whatever becomes of a source, so that a later run takes the job up.

    {"time": "2026-11-27T10:38:48+00:00", "source": "../scans/a.tif", "target": "a_x4.tif", "state": "done",
     "size": 1048576, "mtime_ns": 1795775928000000000, "seconds": 12.3}

The file is JSON Lines (https://jsonlines.org), in ASCII: a byte of a name that is no text is a surrogate, as Python has
it (PEP 383). Lines are appended under a lock, so several processes may write to one file. The last line about a source
counts; what is no such line, as one that was cut when its process was killed, is ignored.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from realesr.cli.files import Job, make_folder
from realesr.cli.names import one_line, shown
from realesr.errors import InputError, OutputError
from realesr.machine.held_file import locked

from .shard import Shard

STATES = ("pending", "done", "failed", "skipped")

_LONGEST_LINE_BYTES = 1 << 18
"""Longer than any line that is written: two paths of 4,096 bytes, six characters each, and a reason."""


@dataclass(frozen=True)
class SourceFacts:
    """What tells whether a file has changed."""

    size: int | None
    """In bytes; None where the file is not there."""
    mtime_ns: int | None


def source_facts(source: Path) -> SourceFacts:
    """Return size and time of a file as they are now."""
    try:
        found = source.stat()
    except (OSError, ValueError):
        return SourceFacts(None, None)
    return SourceFacts(found.st_size, found.st_mtime_ns)


def lies_in_the_input(error: BaseException) -> bool:
    """Return whether a file would fail in every run: not for want of permission or memory, nor for a broken disk."""
    if not isinstance(error, InputError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def manifest_name(shard: Shard) -> str:
    """Return the name of a manifest: each share of a folder has its own."""
    share = "" if shard.count == 1 else f".{shard.number}-of-{shard.count}"
    return f"realesr-manifest{share}.jsonl"


def manifest_folder(source: Path, output_folder: Path | None, input_folders: Collection[Path]) -> Path | None:
    """Return the folder of a source's manifest: the output folder, else the one that was named, else None."""
    if output_folder is not None:
        return output_folder
    return next((folder for folder in source.parents if folder in input_folders), None)


class Manifest:
    """The manifest of one folder, as it was read, and what is added."""

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        """Read the file if there is one.

        Args:
            path: path of the file, which is made with its first line; with None nothing is read or kept.
            say: called once, where the file cannot be written.
        """
        self._path, self._say = path, say
        self._folder = "" if path is None else os.path.realpath(path.parent)
        self._real_path = cache(os.path.realpath)
        self._records: dict[str, dict[str, Any]] = {}
        self._written: dict[str, Any] = {}
        """Source -> size and time of the enlargement that took its place."""
        self._read_bytes = 0
        self._waiting: list[dict[str, Any]] = []
        self._has_begun = self._is_lost = False
        self.refresh()
        self._records_at_first = dict(self._records)
        self._written_at_first = dict(self._written)

    def refresh(self) -> None:
        """Read what has been appended since the last time, by whomever."""
        if self._path is None:
            return
        try:
            with open(self._path, "rb", opener=_open_regular) as file, locked(file.fileno(), shared=True):
                if os.fstat(file.fileno()).st_size < self._read_bytes:
                    self._read_bytes = 0
                file.seek(self._read_bytes)
                while line := file.readline(_LONGEST_LINE_BYTES):
                    record = _record_from(line)
                    if record is not None:
                        self._records[record["source"]] = record
                        if "written" in record:
                            self._written[record["source"]] = record["written"]
                self._read_bytes = file.tell()
        except OSError:
            return  # there is none, or nothing can be learnt from it

    def begin(self, jobs: Iterable[Job]) -> None:
        """Write that these jobs are pending, where the file does not say so already, and what was added before.

        What another process has written since the file was first read stands: it may have done a job by now.
        """
        if self._path is None:
            return
        self.refresh()
        pending = [self._record(job, "pending", source_facts(job.source)) for job in jobs]
        self._waiting[:0] = [record for record in pending if not self._says(record)]
        self._has_begun = True
        self._write()

    def add_done(self, job: Job, facts: SourceFacts, seconds: float) -> None:
        """Write that a job is done."""
        self._add(self._record(job, "done", facts, seconds=round(seconds, 3)))

    def add_replaced(self, job: Job, facts: SourceFacts, seconds: float, *, written: SourceFacts) -> None:
        """Write that the enlargement of a job's source takes its place, on the disk before that happens.

        Where the job is stopped in between, the source is not what was `written`, and is enlarged again.

        Raises:
            OutputError: the file cannot be written: the next run would enlarge the enlargement.
        """
        record = self._record(job, "done", facts, seconds=round(seconds, 3), written=asdict(written))
        if job.backup is not None:
            record["backup"] = self._name(job.backup)
        assert self._path is not None
        try:
            _append(self._path, _lines_of([record]), durable=True)
        except OSError as error:
            raise OutputError(
                f"{self._path} cannot be written ({error.strerror or error}), and {job.source} is left as it is: "
                "no later run would know that it is enlarged already"
            ) from error
        self._written[record["source"]] = record["written"]

    def was_written(self, job: Job, *, since_the_first: bool = False) -> bool:
        """Return whether a job's source is the enlargement that took its place.

        Args:
            job: the job.
            since_the_first: count only what has been written since the file was first read, by another process.
        """
        name = self._name(job.source)
        written = self._written.get(name)
        if written is None or (since_the_first and written is self._written_at_first.get(name)):
            return False
        return bool(asdict(source_facts(job.source)) == written)

    def add_skipped(self, job: Job, facts: SourceFacts, reason: str) -> None:
        """Write that a job is not done, as its source needs no enlarging; the next run looks at it again."""
        self._add(self._record(job, "skipped", facts, reason=reason))

    def add_failed(self, job: Job, facts: SourceFacts, reason: str, *, retry: bool, reading: Mapping[str, Any]) -> None:
        """Write that a job has failed.

        Args:
            job: the job.
            facts: its source, as it was when the job began.
            reason: the reason, in one line.
            retry: whether a later run is to try it again.
            reading: options that decide what is read; with others it is tried again, too.
        """
        self._add(self._record(job, "failed", facts, reason=reason, retry=retry, reading=dict(reading)))

    def add_found(self, job: Job) -> None:
        """Write that a job is done whose output is there, where the file says otherwise."""
        self.refresh()
        if self._records.get(self._name(job.source), {"state": "done"})["state"] != "done":
            self._add(self._record(job, "done", source_facts(job.source)))

    def earlier_failure(self, job: Job, reading: Mapping[str, Any], *, since_the_first: bool) -> str | None:
        """Return why a job is not tried: it failed, and neither its source nor the options have changed; else None.

        Args:
            job: the job.
            reading: options that decide what is read.
            since_the_first: count only what has been written since the file was first read, by another process.
        """
        name = self._name(job.source)
        record = self._records.get(name)
        if record is None or record["state"] != "failed" or record.get("retry") is not False:
            return None
        if since_the_first and record is self._records_at_first.get(name):
            return None
        facts = source_facts(job.source)
        is_same = facts.size is not None and (facts.size, facts.mtime_ns) == (record["size"], record["mtime_ns"])
        return record["reason"] if is_same and record.get("reading") == dict(reading) else None

    def _says(self, record: Mapping[str, Any]) -> bool:
        """Return whether the file has this record already, or another process's about the same source."""
        known = self._records.get(record["source"])
        if known is not self._records_at_first.get(record["source"]):
            return True
        return known is not None and all(
            known.get(key) == record[key] for key in ("state", "target", "size", "mtime_ns")
        )

    def _record(self, job: Job, state: str, facts: SourceFacts, **more: Any) -> dict[str, Any]:
        return {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": self._name(job.source),
            "target": self._name(job.target),
            "state": state,
            "size": facts.size,
            "mtime_ns": facts.mtime_ns,
            **more,
        }

    def _name(self, path: Path) -> str:
        """Return a path as the manifest has it: relative to its folder, absolute where they share but the root."""
        place = os.path.join(self._real_path(path.parent), path.name)
        try:
            common = os.path.commonpath((self._folder, place))
        except ValueError:  # another drive of Windows
            return place
        return place if common == os.path.dirname(common) else Path(os.path.relpath(place, self._folder)).as_posix()

    def _add(self, record: dict[str, Any]) -> None:
        """Write a record; before `begin` it waits, so that a command which does not start leaves no file."""
        self._waiting.append(record)
        if self._has_begun:
            self._write()

    def _write(self) -> None:
        """Append the records that wait; where that is not possible, say so once, and write no more."""
        records, self._waiting = self._waiting, []
        if not records or self._path is None or self._is_lost:
            return
        try:
            make_folder(self._path.parent)
            _append(self._path, _lines_of(records))
        except OutputError:
            self._is_lost = True  # each job says so
        except OSError as error:
            self._is_lost = True
            self._say(
                f"{shown(self._path)} cannot be written ({error.strerror or error}): no later run will know "
                "what failed in this one"
            )


def _open_regular(path: str, flags: int) -> int:
    """Open a file, but neither follow a link nor wait for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def _lines_of(records: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode("ascii")


def _append(path: Path, lines: bytes, *, durable: bool = False) -> None:
    """Append whole lines, at once and below a line that was cut; raise OSError where that is not possible."""
    with open(path, "a+b", opener=_open_regular) as file, locked(file.fileno()):
        file.write(lines if _ends_with_a_line(file) else b"\n" + lines)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def _ends_with_a_line(file: IO[bytes]) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _record_from(line: bytes) -> dict[str, Any] | None:
    """Return a line's record, or None where it is cut, no JSON or of another shape."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("state") not in STATES or not isinstance(record.get("source"), str):
        return None
    if not all(isinstance(record.get(key), int | None) for key in ("size", "mtime_ns")):
        return None
    if record["state"] == "failed":
        if not isinstance(record.get("reason"), str):
            return None
        record["reason"] = one_line(record["reason"])
    return {"size": None, "mtime_ns": None, **record}


class Manifests:
    """The manifests of a run: that of the output folder, or of each input folder that was named."""

    def __init__(
        self,
        output_folder: Path | None,
        input_folders: Collection[Path],
        shard: Shard,
        say: Callable[[str], None],
        *,
        is_beside_sources: bool = False,
    ) -> None:
        """Prepare the manifests, which are read when they are asked for.

        Args:
            output_folder: folder of the outputs; None where they lie beside their sources.
            input_folders: folders that were named.
            shard: share of the images that this run does.
            say: called once, where a manifest cannot be written.
            is_beside_sources: whether each source's own folder has its manifest, however the source was named.
        """
        self._is_beside_sources = is_beside_sources
        self._output_folder, self._input_folders = output_folder, input_folders
        self._name, self._say = manifest_name(shard), say
        self._manifests: dict[Path | None, Manifest] = {}

    def of(self, job: Job) -> Manifest:
        """Return the manifest that a job belongs to; that of a single file keeps nothing."""
        folder: Path | None = job.source.parent
        if not self._is_beside_sources:
            folder = manifest_folder(job.source, self._output_folder, self._input_folders)
        if folder not in self._manifests:
            self._manifests[folder] = Manifest(None if folder is None else folder / self._name, self._say)
        return self._manifests[folder]

    def begin(self, jobs: Iterable[Job]) -> None:
        """Write that these jobs are pending, each in its manifest."""
        jobs_of: dict[Manifest, list[Job]] = {manifest: [] for manifest in self._manifests.values()}
        for job in jobs:
            jobs_of.setdefault(self.of(job), []).append(job)
        for manifest, own_jobs in jobs_of.items():
            manifest.begin(own_jobs)
