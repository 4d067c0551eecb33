"""Replaces each input by its enlargement, in an order that loses nothing, whenever the computer goes down.

    input -> enlarged beside it, under a hidden name, on the disk
          -> its backup, on the disk
          -> a line in the manifest with the size and time of the enlargement, on the disk
          -> the enlargement is renamed over the input

By that line a later run knows what it must not enlarge again.
"""

import contextlib
import errno
import filecmp
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.cli.files import FOLDS_CASE, Found, Job, make_folder, path_key
from realesr.cli.names import shown
from realesr.errors import OutputError, RealesrError, UsageError
from realesr.images.info import OutputFormat
from realesr.images.kinds import find_kind
from realesr.images.output_format import DEFAULT_QUALITY, NAMES
from realesr.machine.whole_file import whole_file
from realesr.options import FileOptions

from .manifest import Manifest, SourceFacts, source_facts

if TYPE_CHECKING:
    from realesr.runtime.file_job import UpscaleResult

Enlarge = Callable[[Path, FileOptions], "UpscaleResult"]
"""Enlarges an input into another file."""


@dataclass(frozen=True)
class InPlace:
    """How inputs are replaced."""

    backup: Path | None
    """Folder of the originals; None where none are kept."""


def in_place_from(
    wanted: bool, backup: str | None, *, no_backup: bool, excluded: Sequence[tuple[str, object]]
) -> InPlace | None:
    """Return how inputs are replaced, as the options state it; None where they are not.

    Args:
        wanted: whether `--in-place` is given.
        backup: value of `--backup`.
        no_backup: whether `--no-backup` is given.
        excluded: options that contradict it, each with its value.

    Raises:
        UsageError: it is not said what becomes of the originals, or twice, or another option contradicts it.
    """
    if not wanted:
        if backup is not None or no_backup:
            raise UsageError(f"got {'--no-backup' if no_backup else '--backup'} without --in-place: add it")
        return None
    for option, value in excluded:
        if value:
            raise UsageError(f"got --in-place and {option}, which contradict each other: leave one of them out")
    if (backup is None) == (not no_backup):
        what = "neither --backup nor --no-backup" if backup is None else "--backup and --no-backup"
        raise UsageError(
            f"got --in-place with {what}: expected --backup FOLDER for the originals, or --no-backup to lose them"
        )
    if backup is not None and not _can_be_folder(backup):
        raise UsageError(f"got --backup {backup}, which is no folder: name one, which is made if it is missing")
    return InPlace(None if backup is None else Path(backup))


def _can_be_folder(name: str) -> bool:
    """Return whether a folder of this name is there, or could be made: what is there of its path are folders."""
    path = Path(name)
    return bool(name) and os.path.isdir(next((place for place in (path, *path.parents) if os.path.lexists(place)), "."))


def plan_in_place(found: Sequence[Found], in_place: InPlace, *, folds_case: bool = FOLDS_CASE) -> list[Job]:
    """Return a job for every image, whose target is the image itself; the tree is mirrored below the backup's folder.

    Raises:
        UsageError: two images would have the same backup, or an image would be its own.
    """
    if in_place.backup is None:
        return [Job(image.path, image.path) for image in found]
    jobs = [Job(image.path, image.path, in_place.backup / image.below / image.path.name) for image in found]
    writers: dict[str, Job] = {}
    for job in jobs:
        assert job.backup is not None
        if path_key(job.backup, folds_case) == path_key(job.source, folds_case):
            raise UsageError(f"got --backup {in_place.backup}, where {job.source} lies itself: name another folder")
        first = writers.setdefault(path_key(job.backup, folds_case), job)
        if first is not job:
            raise UsageError(
                f"{first.source} and {job.source} would both be kept as {job.backup}: "
                "name their folder instead, or another --backup for one of them"
            )
    return jobs


def in_place_state(job: Job, manifest: Manifest, *, overwrite: bool) -> str | None:
    """Return why a job is skipped: an earlier run has replaced its input; None where it is to be done.

    Raises:
        InputError: the input cannot be read.
        OutputError: it is a link, write-protected, of a format that is not written, or holds several images; or the
            backup's name is taken.
    """
    if not overwrite and manifest.was_written(job):
        return f"{job.source} was enlarged in place before: skipped (--overwrite enlarges it again)"
    source = job.source
    if source.is_symlink():
        raise OutputError(f"{source} is a link to {os.readlink(source)}: name the file itself to replace it")
    if not os.access(source, os.W_OK):
        raise OutputError(f"{source} is write-protected and is not replaced: change its permissions, or leave it out")
    if _holds_several_images(source):
        raise OutputError(f"{source} holds several images, and one alone would take their place: enlarge it with -o")
    if job.backup is not None and os.path.lexists(job.backup) and not _is_backup_of(job.backup, source):
        raise OutputError(f"{job.backup} is there already, with other content: name another folder by --backup")
    return None


def _own_format(source: Path) -> OutputFormat:
    """Return the format that a file is in; raise OutputError where that is not written."""
    kind = find_kind(source)
    if kind not in NAMES:
        raise OutputError(f"{source} is {kind.upper()}, which is not written: enlarge it with -o, into another file")
    return NAMES[kind]


def _holds_several_images(source: Path) -> bool:
    """Return whether one image of a file would take the place of several; raise where it cannot be read or written."""
    from realesr.images.several_images import holds_several_images

    return holds_several_images(source, _own_format(source))


def _is_backup_of(backup: Path, source: Path) -> bool:
    """Return whether a file holds what another one does: a run was stopped after it had made the backup."""
    try:
        return filecmp.cmp(backup, source, shallow=False)
    except OSError:
        return False


def replace_input(job: Job, enlarge: Enlarge, file: FileOptions, manifest: Manifest) -> "UpscaleResult":
    """Enlarge a job's input, and put the result in its place.

    Args:
        job: the job, of which this process has the claim.
        enlarge: writes the enlargement of the input to the path and by the options that it is given.
        file: how files are read and written; the format is the input's.
        manifest: manifest of the input's folder.

    Raises:
        RealesrError: the input is as it was before, also in its place.
    """
    source, facts = job.source, source_facts(job.source)
    part = replacement_path(source)
    try:
        fmt = _own_format(source)
        quality = file.quality if fmt in DEFAULT_QUALITY else None
        result = enlarge(part, replace(file, format=fmt, quality=quality, overwrite=True))
        _put_in_place(part, job, facts, result.seconds, manifest)
    except RealesrError as error:
        option = None if error.option == "output" else error.option  # it cannot be named here
        raise type(error)(str(error).replace(str(part), str(source)), option=option) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    notices = tuple(notice.replace(str(part), str(source)) for notice in result.notices)
    return replace(result, target=source, notices=notices)


def replacement_path(source: Path) -> Path:
    """Return where the enlargement of a file waits until it is whole: the same in each run, for rows are kept by it."""
    digest = hashlib.sha256(os.fsencode(source.name)).hexdigest()
    return source.with_name(f".realesr-{digest[:16]}.in-place{source.suffix}")


def _put_in_place(part: Path, job: Job, facts: SourceFacts, seconds: float, manifest: Manifest) -> None:
    """Make the backup, write the manifest and rename; raise OutputError where one of them fails, before the next."""
    source = job.source
    if source_facts(source) != facts:
        raise OutputError(f"{source} has changed while it was enlarged, and was left as it is: start again")
    try:
        shutil.copymode(source, part)
        if job.backup is not None:
            _make_backup(source, job.backup)
        manifest.add_replaced(job, facts, seconds, written=source_facts(part))
        os.replace(part, source)
    except OSError as error:
        raise OutputError(f"{source} cannot be replaced ({error.strerror or error}), and is as it was") from error


def _make_backup(source: Path, backup: Path) -> None:
    """Give a file's content a second name, or copy it, without ever replacing a file; raise OSError or OutputError."""
    make_folder(backup.parent)
    if os.path.lexists(backup):
        if not _is_backup_of(backup, source):
            raise OutputError(f"{shown(backup)} is there already, with other content: name another folder by --backup")
        return
    try:
        os.link(source, backup)
    except OSError:  # another disk, or one without links
        _copy_whole(source, backup)
    _sync_folder(backup.parent)


def _copy_whole(source: Path, backup: Path) -> None:
    """Copy a file with its times and permissions; nothing is left where that fails, with OSError."""
    with whole_file(backup) as part:
        shutil.copy2(source, part)
        if os.path.lexists(backup):  # made by another run meanwhile
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(backup))


def _sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can do that for folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
