"""Plans which files are read and which are written. Only `find_images`, `output_at` and `job_state` read the disk.

paths --find_images--> Found (image, its folder below the named one) --plan_jobs--> Job (source, target)
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr.errors import InputError, OutputError, OutputExists, UsageError
from realesr.images.info import OutputFormat
from realesr.images.kinds import IMAGE_SUFFIXES, ImageKind, expected_kind, find_kind
from realesr.images.output_format import SUFFIXES, check_target, format_of, output_format, output_path

FOLDS_CASE = sys.platform in ("win32", "darwin")
"""Whether A.png and a.png are one file on this system's usual disks."""

OWN_OUTPUT = re.compile(r"(?P<source>.+)_x\d+(\.\d+)?")


@dataclass(frozen=True)
class Found:
    """An image that is to be enlarged."""

    path: Path
    below: Path = Path()
    """Its folder, relative to the folder that was named; mirrored below the output folder."""
    kind: ImageKind | None = None
    """Kind of image that the file holds; None where that is not known, and the suffix counts."""


@dataclass(frozen=True)
class Job:
    """A file to read and the one to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Output:
    """Place and format of the results, as `-o` and `--format` state them."""

    path: Path | None = None
    """None: beside each input."""
    is_folder: bool = True
    """Whether `path` is a folder, not the one file."""
    format: OutputFormat | None = None


def find_images(
    paths: Iterable[Path], *, recursive: bool, output: Path | None = None
) -> tuple[list[Found], list[tuple[Path, InputError]]]:
    """Return the images at these paths, each once, and the paths without images.

    A file stands for itself, a folder for the images in it, without hidden files, outputs of an earlier run that lie
    beside their sources, and the folder `output`.
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
    """Return the image at `path`, or those in it; raise InputError where there is none."""
    if not path.exists():
        raise InputError(f"{path} does not exist: expected an image or a folder with images")
    if not path.is_dir():
        return [_found(path)]
    skipped = output.resolve() if output is not None and output.resolve() != path.resolve() else None
    images = [image for folder in _folders(path, recursive, skipped) for image in _images_in(folder, path)]
    if not images:
        deeper = (
            "" if recursive or next(_folders_in(path), None) is None else "; --recursive looks into its folders, too"
        )
        raise InputError(f"{path} is a folder without images: expected files such as .jpg, .png or .tif in it{deeper}")
    return images


def _folders(root: Path, recursive: bool, skipped: Path | None) -> Iterator[Path]:
    """Yield the folder itself, then those below it, without hidden ones, links and `skipped`."""
    yield root
    if recursive:
        for folder in _folders_in(root):
            if folder.resolve() != skipped:
                yield from _folders(folder, True, skipped)


def _folders_in(folder: Path) -> Iterator[Path]:
    """Yield the folders that lie directly in a folder, without hidden ones and links."""
    return (
        item for item in sorted(folder.iterdir()) if item.is_dir() and not _is_hidden(item) and not item.is_symlink()
    )


def _images_in(folder: Path, root: Path) -> list[Found]:
    """Return the images that lie directly in a folder at or below `root`."""
    visible = (item for item in sorted(folder.iterdir()) if not _is_hidden(item))
    images = [item for item in visible if item.suffix.lower() in IMAGE_SUFFIXES and item.is_file()]
    names = {image.name for image in images}
    below = folder.relative_to(root)
    return [_found(image, below) for image in images if not is_own_output(image.name, names)]


def _found(path: Path, below: Path = Path()) -> Found:
    """Return an image with its kind; what is wrong with a file is reported when it is enlarged."""
    try:
        return Found(path, below, find_kind(path))
    except InputError:
        return Found(path, below)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def is_own_output(name: str, names: Collection[str]) -> bool:
    """Return whether `name` looks like the output of another of `names`, as photo_x4.png of photo.jpg."""
    match = OWN_OUTPUT.fullmatch(Path(name).stem)
    if match is None:
        return False
    source = match["source"]
    others = [Path(other) for other in names if other != name]
    return any(source in (other.stem, _stem_with_suffix(other)) for other in others)


def output_at(text: str | None, *, many: bool, wanted: OutputFormat | None) -> Output:
    """Return the output that `-o` and `--format` state.

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


def plan_jobs(found: Sequence[Found], *, scale: float, output: Output, folds_case: bool = FOLDS_CASE) -> list[Job]:
    """Return a job for every image; no two have the same target, and no target is an image that is read.

    Images of one name (photo.bmp, photo.png) that would be written to one file keep their suffix in its name
    (photo_bmp_x4.png, photo_png_x4.png).

    Raises:
        UsageError: a target would be an input, or two images would still be written to one file.
    """
    if output.path is not None and not output.is_folder:
        jobs = [Job(image.path, output.path) for image in found]
    else:
        jobs = _jobs_with_distinct_names(found, scale, output, folds_case)
    _check_targets_differ(jobs, folds_case)
    _check_no_target_is_an_input(jobs, folds_case)
    return jobs


def _jobs_with_distinct_names(found: Sequence[Found], scale: float, output: Output, folds_case: bool) -> list[Job]:
    """Return a job for every image; where short names coincide, the target's name has the source's suffix in it."""
    short = [Job(image.path, _target(image, scale, output)) for image in found]
    uses = Counter(_key(job.target, folds_case) for job in short)
    return [
        job
        if uses[_key(job.target, folds_case)] == 1
        else Job(image.path, _target(image, scale, output, keeps_suffix=True))
        for image, job in zip(found, short, strict=True)
    ]


def _check_targets_differ(jobs: Iterable[Job], folds_case: bool) -> None:
    """Raise UsageError where two images would be written to one file."""
    writers: dict[str, Job] = {}
    for job in jobs:
        first = writers.setdefault(_key(job.target, folds_case), job)
        if first is not job:
            raise UsageError(
                f"{first.source} and {job.source} would both be written to {first.target}: "
                "rename one of them, or enlarge them into different folders"
            )


def _check_no_target_is_an_input(jobs: Sequence[Job], folds_case: bool) -> None:
    """Raise UsageError where an output would replace an input."""
    sources = {_key(job.source, folds_case): job.source for job in jobs}
    for job in jobs:
        overwritten = sources.get(_key(job.target, folds_case))
        if overwritten is not None:
            raise UsageError(f"{job.source} would be written over the input {overwritten}: choose another -o")


def _target(image: Found, scale: float, output: Output, *, keeps_suffix: bool = False) -> Path:
    """Return the path of an image's output; its name has the source's suffix in it where `keeps_suffix` is true."""
    fmt = output_format(image.kind or expected_kind(image.path), None, output.format)
    folder = None if output.path is None else output.path / image.below
    source = image.path
    if keeps_suffix and source.suffix:
        source = source.with_name(_stem_with_suffix(source) + source.suffix)
    return output_path(source, scale, fmt, folder)


def _stem_with_suffix(path: Path) -> str:
    """Return the stem with the suffix in it: photo.bmp -> "photo_bmp"."""
    return f"{path.stem}_{path.suffix.removeprefix('.')}" if path.suffix else path.stem


def _key(path: Path, folds_case: bool) -> str:
    """Return a text that is equal for two paths of one file; `..` is resolved as text, links are not followed."""
    text = os.path.abspath(path)
    return text.casefold() if folds_case else text


def job_state(job: Job, *, overwrite: bool) -> str | None:
    """Return why a job is skipped: its target exists; None where it is to be done.

    Raises:
        UsageError: the target is the source under another name (a link), which must not be overwritten.
    """
    try:
        check_target(job.source, job.target, overwrite=overwrite)
    except OutputExists:
        return f"{job.target} exists: skipped (--overwrite writes it anew)"
    except OutputError as error:
        raise UsageError(str(error), option=error.option) from None
    return None
