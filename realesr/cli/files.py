"""Which files are read and which are written. Only `find_images`, `output_at` and `job_state` look at the disk.

paths --find_images--> Found (image, folder below the one that was named) --plan_jobs--> Job (source, target)
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr.errors import InputError, UsageError
from realesr.image_info import OutputFormat
from realesr.image_kinds import IMAGE_SUFFIXES
from realesr.output_format import SUFFIXES, suffix_for

LOSSLESS = ("png", "tiff")
"""Formats that have no quality to choose."""

FOLDS_CASE = sys.platform in ("win32", "darwin")
"""Whether A.png and a.png are one file on this system's usual disks."""

OWN_OUTPUT = re.compile(r"(?P<source>.+)_x\d+(\.\d+)?")


@dataclass(frozen=True)
class Found:
    """An image that is to be enlarged."""

    path: Path
    below: Path = Path()
    """Its folder, relative to the folder that was named; mirrored below the output folder."""


@dataclass(frozen=True)
class Job:
    """One file to read and the one to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Output:
    """Where results go, as `-o` and `--format` say it."""

    path: Path | None = None
    """None: beside each input."""
    is_folder: bool = True
    """Whether `path` is a folder, not the one file."""
    format: OutputFormat | None = None


def find_images(
    paths: Iterable[Path], *, recursive: bool, output: Path | None = None
) -> tuple[list[Found], list[tuple[Path, InputError]]]:
    """Files as they are, folders as the images in them, each image once; and the paths that hold none.

    Left out of folders: hidden files, what an earlier run wrote beside its source, and `output` where it lies below.
    """
    found: dict[Path, Found] = {}
    failures: list[tuple[Path, InputError]] = []
    for path in paths:
        try:
            for image in _images_at(path, recursive, output):
                found.setdefault(image.path.resolve(), image)
        except OSError as error:
            failures.append((path, InputError(f"{path} cannot be read: {error.strerror or error}")))
        except InputError as error:
            failures.append((path, error))
    return list(found.values()), failures


def _images_at(path: Path, recursive: bool, output: Path | None) -> list[Found]:
    if not path.exists():
        raise InputError(f"{path} does not exist: expected an image or a folder with images")
    if not path.is_dir():
        return [Found(path)]
    skipped = output.resolve() if output is not None and output.resolve() != path.resolve() else None
    images = [image for folder in _folders(path, recursive, skipped) for image in _images_in(folder, path)]
    if not images:
        deeper = (
            "" if recursive or next(_folders_in(path), None) is None else "; --recursive looks into its folders, too"
        )
        raise InputError(f"{path} is a folder without images: expected files such as .jpg, .png or .tif in it{deeper}")
    return images


def _folders(root: Path, recursive: bool, skipped: Path | None) -> Iterator[Path]:
    """The folder itself, then those below it, without hidden ones, links and `skipped`."""
    yield root
    if recursive:
        for folder in _folders_in(root):
            if folder.resolve() != skipped:
                yield from _folders(folder, True, skipped)


def _folders_in(folder: Path) -> Iterator[Path]:
    return (
        item for item in sorted(folder.iterdir()) if item.is_dir() and not _is_hidden(item) and not item.is_symlink()
    )


def _images_in(folder: Path, root: Path) -> list[Found]:
    visible = (item for item in sorted(folder.iterdir()) if not _is_hidden(item))
    images = [item for item in visible if item.suffix.lower() in IMAGE_SUFFIXES and item.is_file()]
    names = {image.name for image in images}
    below = folder.relative_to(root)
    return [Found(image, below) for image in images if not is_own_output(image.name, names)]


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def is_own_output(name: str, names: Collection[str]) -> bool:
    """Whether `name` looks like what an earlier run made of another of `names`, as photo_x4.png of photo.jpg."""
    match = OWN_OUTPUT.fullmatch(Path(name).stem)
    if match is None:
        return False
    source = match["source"]
    others = [Path(other) for other in names if other != name]
    return any(source in (other.stem, _full_stem(other)) for other in others)


def output_at(text: str | None, *, many: bool, wanted: OutputFormat | None) -> Output:
    """What `-o` and `--format` mean.

    A path with the suffix of a format that can be written is a file, everything else a folder.

    Args:
        text: value of `-o`.
        many: whether there may be more than one output.
        wanted: value of `--format`.

    Raises:
        UsageError: one file for many inputs, a suffix that cannot be written, or one that contradicts `wanted`.
    """
    if text is None:
        return Output(format=wanted)
    path = Path(text)
    if path.is_dir() or text.endswith(("/", os.sep)) or not path.suffix:
        return Output(path, format=wanted)
    named = format_of(path)
    if named is None:
        if many:  # a folder's name may have a dot in it
            return Output(path, format=wanted)
        raise UsageError(
            f"got -o {text}, expected a folder (end it with /) or a file that ends in {', '.join(SUFFIXES)}"
        )
    if many:
        raise UsageError(f"got -o {text}, which names one file, for many inputs: name a folder (end it with /)")
    if wanted is not None and wanted != named:
        raise UsageError(f"got -o {text} and --format {wanted}, which contradict each other: leave one of them out")
    return Output(path, is_folder=False, format=named)


def format_of(path: Path) -> OutputFormat | None:
    """The format that a suffix means, or None where it is not one that can be written."""
    return SUFFIXES.get(path.suffix.lower())


def plan_jobs(found: Sequence[Found], *, scale: float, output: Output, folds_case: bool = FOLDS_CASE) -> list[Job]:
    """The target of every image; no two the same, and none of them an image that is read.

    Images of one name (photo.bmp, photo.png) that would be written to one file keep their suffix in its name
    (photo_bmp_x4.png, photo_png_x4.png).

    Raises:
        UsageError: a target would be an input, or two images would still be written to one file.
    """
    if output.path is not None and not output.is_folder:
        jobs = [Job(image.path, output.path) for image in found]
    else:
        jobs = _named_apart(found, scale, output, folds_case)
    _check_none_is_written_twice(jobs, folds_case)
    _check_none_is_an_input(jobs, folds_case)
    return jobs


def _named_apart(found: Sequence[Found], scale: float, output: Output, folds_case: bool) -> list[Job]:
    short = [Job(image.path, _target(image, scale, output)) for image in found]
    uses = Counter(_key(job.target, folds_case) for job in short)
    return [
        job if uses[_key(job.target, folds_case)] == 1 else Job(image.path, _target(image, scale, output, full=True))
        for image, job in zip(found, short, strict=True)
    ]


def _check_none_is_written_twice(jobs: Iterable[Job], folds_case: bool) -> None:
    writers: dict[str, Job] = {}
    for job in jobs:
        first = writers.setdefault(_key(job.target, folds_case), job)
        if first is not job:
            raise UsageError(
                f"{first.source} and {job.source} would both be written to {first.target}: "
                "rename one of them, or enlarge them into different folders"
            )


def _check_none_is_an_input(jobs: Sequence[Job], folds_case: bool) -> None:
    sources = {_key(job.source, folds_case): job.source for job in jobs}
    for job in jobs:
        overwritten = sources.get(_key(job.target, folds_case))
        if overwritten is not None:
            raise UsageError(f"{job.source} would be written over the input {overwritten}: choose another -o")


def _target(image: Found, scale: float, output: Output, *, full: bool = False) -> Path:
    folder = image.path.parent if output.path is None else output.path / image.below
    stem = _full_stem(image.path) if full else image.path.stem
    suffix = suffix_for(output.format or format_of(image.path) or "png", image.path)
    return folder / f"{stem}_x{scale:g}{suffix}"


def _full_stem(path: Path) -> str:
    return f"{path.stem}_{path.suffix.removeprefix('.')}" if path.suffix else path.stem


def _key(path: Path, folds_case: bool) -> str:
    """Equal for two paths that mean one file; `..` is taken out as text, links are not followed."""
    text = os.path.abspath(path)
    return text.casefold() if folds_case else text


def job_state(job: Job, *, overwrite: bool) -> str | None:
    """Why a job is not done: its target exists; None where it is to be done.

    Raises:
        UsageError: the target is the source under another name (a link), which must not be overwritten.
    """
    if not job.target.exists():
        return None
    if job.source.exists() and job.target.samefile(job.source):
        raise UsageError(f"{job.target} is the input {job.source} itself: choose another -o")
    return None if overwrite else f"{job.target} exists: skipped (--overwrite writes it anew)"
