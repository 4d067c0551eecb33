"""One run of `realesr score`: scores one image after the other; a file's failure does not stop the others."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realesr.errors import UsageError

from . import stopping
from .files import find_images
from .names import quoted_names, shown
from .references import Pair, pair_with_references

if TYPE_CHECKING:
    from realesr.scores.lpips import Lpips
    from realesr.scores.photos import Scores

    from .console import Messages

CAUTION = (
    "NIQE is low where an image looks like clean photos in general, not like this one: it falls with sharpening and "
    "grain, misleads for small, flat or drawn images, and other scores without a reference often disagree with it"
)
"""Said once a run. The measurements are in docs/scores.md."""

COLUMNS = {"niqe": ("NIQE", 3), "psnr_y_db": ("PSNR-Y dB", 2), "ssim_y": ("SSIM", 4), "lpips": ("LPIPS", 4)}
"""Field of `Scores` -> heading of its column, and digits behind the point."""
SCORES = tuple(COLUMNS)

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """The command's arguments, checked."""

    paths: Sequence[Path]
    recursive: bool
    reference: Path | None
    border_px: int
    lpips: Sequence[Path]
    json: bool


def checked_request(
    paths: Sequence[Path],
    reference: Path | None,
    border: int | None,
    lpips: Sequence[Path],
    *,
    recursive: bool,
    json: bool,
) -> ScoreRequest:
    """Return the request that the arguments make.

    Raises:
        UsageError: an option needs a reference, a file that is named by one does not exist, or the border is negative.
    """
    from realesr.scores.reference import BORDER_PX

    for name, given in (("--border", border is not None), ("--lpips", bool(lpips))):
        if given and reference is None:
            raise UsageError(f"got {name} without --reference: name an image or a folder to compare with")
    if reference is not None and not reference.exists():
        raise UsageError(f"got --reference {reference}, which does not exist: expected an image or a folder")
    for path in lpips:
        if not path.is_file():
            raise UsageError(f"got --lpips {path}, which is no file: expected its linear layers, or the backbone")
    if border is not None and border < 0:
        raise UsageError(f"got --border {border}, expected 0 or more")
    return ScoreRequest(
        paths=paths,
        recursive=recursive,
        reference=reference,
        border_px=BORDER_PX if border is None else border,
        lpips=lpips,
        json=json,
    )


class ScoreRun:
    """One run of the command."""

    def __init__(self, request: ScoreRequest, messages: "Messages") -> None:
        self._request, self._messages = request, messages
        self._scored: list[tuple[Path, Scores]] = []
        self._failed = 0

    def run(self) -> int:
        """Score all images, and report them; return the exit code."""
        request = self._request
        lpips = opened_lpips(request.lpips)
        found, failures = find_images(request.paths, recursive=request.recursive, with_outputs=True)
        pairing = pair_with_references(found, request.reference, recursive=request.recursive)
        self._messages.say(CAUTION)
        for path, error in [*failures, *pairing.failures]:
            self._fail(path, error)
        if pairing.unused and any(path.is_dir() for path in request.paths):
            self._messages.say(unused_notice(pairing.unused))
        for number, pair in enumerate(pairing.pairs, start=1):
            self._score(pair, lpips, f"{shown(pair.image.name)} ({number} of {len(pairing.pairs)})")
        self._end()
        return 1 if self._failed else 0

    def _score(self, pair: Pair, lpips: "Lpips | None", title: str) -> None:
        """Score one image, and report it."""
        from realesr.scores.photos import score_file

        stopping.check()
        try:
            with self._messages.progress(title):
                scores = score_file(pair.image, pair.reference, border_px=self._request.border_px, lpips=lpips)
        except Exception as error:  # one file must not stop the others
            stopping.check()  # an interrupted library raises whatever it likes
            self._fail(pair.image, error, pair.reference)
            return
        self._scored.append((pair.image, scores))
        names = (pair.image,) if pair.reference is None else (pair.image, pair.reference)
        for notice in scores.notices:
            self._messages.say(quoted_names(notice, names))
        if self._request.json:
            self._print_json({"image": pair.image, "reference": pair.reference, **record(scores)})

    def _fail(self, path: Path, error: Exception, reference: Path | None = None) -> None:
        """Report an image that has no scores."""
        from .console import one_line

        about = (path,) if reference is None else (path, reference)
        self._failed += 1
        self._messages.error(error, about)
        if self._request.json:
            self._print_json({"image": path, "error": one_line(error, about)})

    def _end(self) -> None:
        """Report the means, and without JSON all scores."""
        from . import console

        means = mean_scores([scores for _, scores in self._scored])
        if self._request.json:
            self._print_json({"mean_of": len(self._scored), **{name: in_json(means[name]) for name in SCORES}})
            return
        rows = [row(shown(path), vars(scores), self._columns) for path, scores in self._scored]
        if len(self._scored) > 1:
            rows.append(row("mean", means, self._columns))
        if rows:
            console.table("Scores", ("image", *(COLUMNS[name][0] for name in self._columns)), rows)

    @property
    def _columns(self) -> Sequence[str]:
        """Return the fields that the table shows: those that were asked for."""
        return SCORES if self._request.lpips else SCORES[:-1] if self._request.reference else SCORES[:1]

    def _print_json(self, values: Mapping[str, object]) -> None:
        from . import console

        console.json_line(values)


def unused_notice(references: Sequence[Path]) -> str:
    """Return one line that names references, or the first of many, that no image is compared with."""
    names = ", ".join(shown(path) for path in references[:_MOST_NAMED])
    others = len(references) - _MOST_NAMED
    return f"no image to score for the reference {names}" + (f" and {others} others" if others > 0 else "")


def opened_lpips(paths: Sequence[Path]) -> "Lpips | None":
    """Return LPIPS with the weights in these files; None where there are none."""
    if not paths:
        return None
    from realesr.scores.lpips import open_lpips

    return open_lpips(paths)


def record(scores: "Scores") -> dict[str, object]:
    """Return the scores of an image as JSON has them."""
    values = {name: in_json(getattr(scores, name)) for name in SCORES}
    return {"width_px": scores.width_px, "height_px": scores.height_px, **values, "notices": scores.notices}


def in_json(value: float | None) -> float | None:
    """Return a score as JSON can hold it: None for an infinite one."""
    return None if value is None or math.isinf(value) else value


def mean_scores(scored: Sequence["Scores"]) -> dict[str, float | None]:
    """Return the mean of each score over the images that have it; None where none has."""
    means: dict[str, float | None] = {}
    for name in SCORES:
        values = [value for scores in scored if (value := getattr(scores, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def row(name: str, values: Mapping[str, float | None], columns: Sequence[str]) -> tuple[str, ...]:
    """Return one row of the table; "-" for a score that there is not."""
    cells = ((values[column], COLUMNS[column][1]) for column in columns)
    return (name, *("-" if value is None else f"{value:.{digits}f}" for value, digits in cells))
