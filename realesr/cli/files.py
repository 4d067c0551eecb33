"""Plans which files are read and which are written. All but `without_outputs` and `plan_jobs` ask the disk.

paths --find_images--> Found (image, its folder below the named one) --without_outputs--> Found
      --plan_jobs--> Job (source, target) --job_state, make_folder--> ready
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from realesr.errors import InputError, OutputError, OutputExists, UsageError
from realesr.images.info import OutputFormat
from realesr.images.kinds import IMAGE_SUFFIXES, ImageKind, check_is_file, expected_kind, find_kind
from realesr.images.output_format import PREVIEW_ENDING, SUFFIXES, check_target, format_of, output_format, output_path
from realesr.target_size import LABEL

from .names import shown

FOLDS_CASE = sys.platform in ("win32", "darwin")
"""Whether A.png and a.png are one file on this system's usual disks."""

OWN_OUTPUT = re.compile(rf"(?P<source>.+)_(x\d+(\.\d+)?|{LABEL.pattern})({PREVIEW_ENDING})?", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """An image that is to be enlarged."""

    path: Path
    below: Path = Path()
    """Its folder, relative to the folder that was named; mirrored below the output folder."""
    kind: ImageKind | None = None
    """Kind of image that the file holds; None where that is not known, and the suffix counts."""
    target_name: str | None = None
    """Name of its output where a template gives it one."""


@dataclass(frozen=True)
class Job:
    """A file to read and the one to write."""

    source: Path
    target: Path
    backup: Path | None = None
    """Where the source is kept before its enlargement takes its place."""

    @property
    def is_in_place(self) -> bool:
        """Return whether the enlargement takes the place of the source."""
        return self.source == self.target


@dataclass(frozen=True)
class Output:
    """Place and format of the results, as `-o` and `--format` state them."""

    path: Path | None = None
    """None: beside each input."""
    is_folder: bool = True
    """Whether `path` is a folder, not the one file."""
    format: OutputFormat | None = None


Failures = list[tuple[Path, InputError]]
"""Files and folders that cannot be read, each with its reason."""


def find_images(
    paths: Iterable[Path], *, recursive: bool, output: Path | None = None, with_outputs: bool = False
) -> tuple[list[Found], Failures]:
    """Return the images at these paths, each once, and what was named or found and cannot be read, with its reason.

    A file stands for itself, a folder for the images in it, without hidden files, outputs of an earlier run that lie
    beside their sources (unless `with_outputs` is true), and the folder `output`. Of an image and links to it, all of
    which were named or found, it is the image.
    """
    found: dict[str, Found] = {}
    failures: Failures = []
    for path in paths:
        for image in _images_at(path, recursive, output, failures, with_outputs=with_outputs):
            known = found.setdefault(os.path.realpath(image.path), image)
            if os.path.islink(known.path) and not os.path.islink(image.path):
                found[os.path.realpath(image.path)] = image
    return list(found.values()), failures


def _images_at(
    path: Path, recursive: bool, output: Path | None, failures: Failures, *, with_outputs: bool
) -> list[Found]:
    """Return the image at `path`, or those in it; what cannot be read is added to `failures`."""
    if not os.path.isdir(path):
        return _files_of([path], Path(), failures)
    before = len(failures)
    images: list[Found] = []
    has_folders = False
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        files, folders = _content(folder, failures)
        images += _images_in(files, folder.relative_to(path), failures, with_outputs=with_outputs)
        has_folders = has_folders or bool(folders)
        if recursive:
            waiting += (item for item in reversed(folders) if not _is_output(item, output, path))
    if not images and len(failures) == before:
        deeper = "; --recursive looks into its folders, too" if has_folders and not recursive else ""
        reason = f"{path} is a folder without images: expected files such as .jpg, .png or .tif in it{deeper}"
        failures.append((path, InputError(reason)))
    return images


def _is_output(folder: Path, output: Path | None, root: Path) -> bool:
    """Return whether a folder below `root` is the output's; never where that is `root` itself."""
    place = None if output is None else os.path.realpath(output)
    return place is not None and place != os.path.realpath(root) and place == os.path.realpath(folder)


def _content(folder: Path, failures: Failures) -> tuple[list[Path], list[Path]]:
    """Return the files that lie directly in a folder, and its folders but for links, both without hidden ones."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        failures.append((folder, InputError(f"{folder} cannot be read: {error.strerror or error}")))
        return [], []
    for entry in visible:
        if entry.is_dir(follow_symlinks=False):  # known without asking the disk, even where that is not allowed
            folders.append(folder / entry.name)
        elif not os.path.isdir(folder / entry.name):
            files.append(folder / entry.name)
    return files, folders


def _images_in(files: Sequence[Path], below: Path, failures: Failures, *, with_outputs: bool) -> list[Found]:
    """Return those of a folder's files that are images by their names; outputs of an earlier run if `with_outputs`."""
    images = [item for item in files if item.suffix.lower() in IMAGE_SUFFIXES]
    sources = {} if with_outputs else source_stems(image.name for image in images)
    return _files_of([image for image in images if source_of(image.name, sources) is None], below, failures)


def _files_of(paths: Iterable[Path], below: Path, failures: Failures) -> list[Found]:
    """Return regular files with their kinds; others are failures. What is wrong in a file is told when it is read."""
    found = []
    for path in paths:
        try:
            _check_exists(path)
            check_is_file(path)
        except InputError as error:
            failures.append((path, error))
            continue
        try:
            found.append(Found(path, below, find_kind(path)))
        except InputError:
            found.append(Found(path, below))
    return found


def _check_exists(path: Path) -> None:
    """Raise InputError where there is nothing at `path`, not even a link that leads nowhere."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist: expected an image or a folder with images") from None
    except (OSError, ValueError):
        return  # `check_is_file` has the reason


def source_stems(names: Iterable[str]) -> dict[str, str]:
    """Return beginning of an output's name -> name of its source: "photo" and "photo_jpg" -> photo.jpg."""
    paths = [Path(name) for name in names]
    return {stem: path.name for path in paths for stem in (_stem_with_suffix(path), path.stem)}


def source_of(name: str, stems: Mapping[str, str]) -> str | None:
    """Return the source that `name` looks like an output of, as photo.jpg for photo_x4.png; see `source_stems`."""
    match = OWN_OUTPUT.fullmatch(Path(name).stem)
    return None if match is None else stems.get(match["source"])


def without_outputs(
    found: Sequence[Found], *, ending: str, output: Output
) -> tuple[list[Found], list[tuple[Path, str]]]:
    """Return the images without those that an earlier run made of the others, and the latter, each with a reason.

    These are photo_x4.jpg beside photo.jpg, as a shell makes them of *.jpg, and what would be written now. One image
    without its source stays, whatever its name is.
    """
    names: dict[Path, list[str]] = {}
    for image in found:
        names.setdefault(image.path.parent, []).append(image.path.name)
    stems = {folder: source_stems(inside) for folder, inside in names.items()}
    writers: dict[str, Path] = {}
    if output.is_folder:
        for image in found:
            writers.setdefault(os.path.abspath(_target(image, ending, output)), image.path)
    kept, outputs = [], []
    for image in found:
        path = image.path
        source = writers.get(os.path.abspath(path)) or source_of(path.name, stems[path.parent])
        if source is None or source == path:  # its own output: `plan_jobs` refuses that
            kept.append(image)
        else:
            reason = f"{shown(path)} is taken for an output of {shown(source)}: skipped (named alone it is enlarged)"
            outputs.append((path, reason))
    return kept, outputs


def output_at(text: str | None, *, many: bool, wanted: OutputFormat | None) -> Output:
    """Return the output that `-o` and `--format` state.

    A path with the suffix of a format that can be written is a file, everything else a folder.

    Args:
        text: value of `-o`.
        many: whether there may be more than one output.
        wanted: value of `--format`.

    Raises:
        UsageError: one file for many inputs, a suffix that cannot be written, one that contradicts `wanted`, or no
            place for files.
    """
    if text is None:
        return Output(format=wanted)
    path = Path(text)
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UsageError(f"got -o {text}, which is a pipe or a device, expected a file or a folder")
    if os.path.isdir(path) or text.endswith(("/", os.sep)) or not path.suffix:
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


def plan_jobs(found: Sequence[Found], *, ending: str, output: Output, folds_case: bool = FOLDS_CASE) -> list[Job]:
    """Return a job for every image; no two have the same target, and no target is an image that is read.

    Images of one name (photo.bmp, photo.png) that would be written to one file keep their suffix in its name
    (photo_bmp_x4.png, photo_png_x4.png).

    Raises:
        UsageError: a target would be an input, or two images would still be written to one file.
    """
    if output.path is not None and not output.is_folder:
        jobs = [Job(image.path, output.path) for image in found]
    else:
        jobs = _jobs_with_distinct_names(found, ending, output, folds_case)
    _check_targets_differ(jobs, folds_case, is_by_template=any(image.target_name for image in found))
    _check_no_target_is_an_input(jobs, folds_case)
    return jobs


def _jobs_with_distinct_names(found: Sequence[Found], ending: str, output: Output, folds_case: bool) -> list[Job]:
    """Return a job for every image; where short names coincide, the target's name has the source's suffix in it."""
    short = [Job(image.path, _target(image, ending, output)) for image in found]
    uses = Counter(path_key(job.target, folds_case) for job in short)
    return [
        job
        if uses[path_key(job.target, folds_case)] == 1 or image.target_name is not None
        else Job(image.path, _target(image, ending, output, keeps_suffix=True))
        for image, job in zip(found, short, strict=True)
    ]


def _check_targets_differ(jobs: Iterable[Job], folds_case: bool, *, is_by_template: bool) -> None:
    """Raise UsageError where two images would be written to one file."""
    writers: dict[str, Job] = {}
    advice = "rename one of them, or enlarge them into different folders"
    if is_by_template:
        advice = "tell them apart by {stem}, {suffix} or {parent} in --name"
    for job in jobs:
        first = writers.setdefault(path_key(job.target, folds_case), job)
        if first is not job:
            raise UsageError(f"{first.source} and {job.source} would both be written to {first.target}: {advice}")


def _check_no_target_is_an_input(jobs: Sequence[Job], folds_case: bool) -> None:
    """Raise UsageError where an output would replace an input."""
    sources = {path_key(job.source, folds_case): job.source for job in jobs}
    for job in jobs:
        overwritten = sources.get(path_key(job.target, folds_case))
        if overwritten is not None:
            raise UsageError(f"{job.source} would be written over the input {overwritten}: choose another -o")


def _target(image: Found, ending: str, output: Output, *, keeps_suffix: bool = False) -> Path:
    """Return the path of an image's output; its name has the source's suffix in it where `keeps_suffix` is true."""
    fmt = output_format(image.kind or expected_kind(image.path), None, output.format)
    folder = None if output.path is None else output.path / image.below
    source = image.path
    if image.target_name is not None:
        return (folder or source.parent) / image.target_name
    if keeps_suffix and source.suffix:
        source = source.with_name(_stem_with_suffix(source) + source.suffix)
    return output_path(source, ending, fmt, folder)


def _stem_with_suffix(path: Path) -> str:
    """Return the stem with the suffix in it: photo.bmp -> "photo_bmp"."""
    return f"{path.stem}_{path.suffix.removeprefix('.')}" if path.suffix else path.stem


def path_key(path: Path, folds_case: bool) -> str:
    """Return a text that is equal for two paths of one file; `..` is resolved as text, links are not followed."""
    text = os.path.abspath(path)
    return text.casefold() if folds_case else text


def job_state(job: Job, *, overwrite: bool) -> str | None:
    """Return why a job is skipped: its target exists; None where it is to be done.

    Raises:
        OutputError: the target is the source under another name (a link), no regular file, or its name is too long.
    """
    try:
        check_target(job.source, job.target, overwrite=overwrite)
    except OutputExists:
        return f"{job.target} exists: skipped (--overwrite writes it anew)"
    return None


def make_folder(folder: Path) -> None:
    """Make an output's folder and those above it, where they are missing.

    Raises:
        OutputError: it cannot be made: below a file, without permission, on a read-only or full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        taken = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
        raise OutputError(f"{taken} is no folder: expected one for the output", option="output") from error
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror or error})", option="output") from error
