"""Says what may differ from the run's beginning where it goes on, and what may not and why."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from realesr.errors import UsageError
from realesr.train.stage_options import StageOptions

_CHANGE_NOTHING_LEARNED = (
    "purpose",
    "validation.every",
    "validation.crops",
    "validation.crop_px",
    "validation.grid",
    "validation.lpips",
    "save",
    "log_every",
    "data.workers",
    "data.max_failures",
    "teacher.cache",
    "stage1.iterations",
    "stage2.iterations",
)
"""Keys, and tables with all below them, that may differ wherever a run goes on."""

_JUDGES_ALIKE = ("validation.every", "validation.grid", "validation.lpips")
"""Options of the validation that leave PSNR as it is, by which the best network is chosen."""

_FIXED_IN_STAGE = {
    "batch": "the samples of an iteration follow from it",
    "crop_px": "the samples of an iteration follow from it",
    "optimizer": "what the optimiser remembers is of no use to another",
    "l1_sharp": "the run learns, and is scored against, this truth",
    "perceptual_sharp": "the run learns, and is scored against, this truth",
    "gan_sharp": "the run learns, and is scored against, this truth",
    "gan_details": "the discriminator has learned what it sees",
}
"""Options of a stage that may not change, and why; all others may where the run is resumed on purpose."""

_FIXED = {
    "stage": "a stage begins with a run of its own",
    "data": "the samples of an iteration follow from it",
    "validation.hold_out": "the images that are trained on follow from it",
    "seed": "the samples of an iteration follow from it",
    "degrade": "the run learns to undo this degradation",
    "discriminator": "its weights fit no other network",
    "init": "the run has begun there",
    "teacher": "the run learns its answers",
}
"""Other keys, and tables with all below them, that may not."""
_FIXED_NETWORK = "its weights fit no other network"

_SHOWN = 5
"""Most differences that a message names."""


def may_change(stage: str) -> list[str]:
    """Return the keys that may change where a run of this stage is resumed on purpose; "save.*" is a whole table."""
    free = [f"{key}.*" if key == "save" else key for key in _CHANGE_NOTHING_LEARNED if not key.startswith("stage")]
    return [*free, *(f"{stage}.{each.name}" for each in fields(StageOptions) if each.name not in _FIXED_IN_STAGE)]


def changes_since(
    before: Mapping[str, Any], now: Mapping[str, Any], run: Path, *, stage: str, on_purpose: bool
) -> dict[str, tuple[Any, Any]]:
    """Compare the recipe of a checkpoint with the one that the run is to go on with.

    Args:
        before: nested tables, with the key "stage".
        now: the same of the recipe to go on with.
        run: the run's folder, for messages.
        stage: the stage that is run; options of the other one do not matter.
        on_purpose: whether what is learned from may change too, as `may_change` lists it.

    Returns:
        Dotted key -> value before and now, of what differs and may.

    Raises:
        UsageError: something differs that may not; it is named, with the reason.
    """
    old, new = flat(before), flat(now)
    changed = {
        key: (old.get(key), new.get(key))
        for key in {**old, **new}
        if old.get(key) != new.get(key) and not _is_of_other_stage(key, stage)
    }
    refused = {key: reason for key in changed for reason in _reasons(key, stage)}
    learned = [key for key in changed if not _is_below(key, _CHANGE_NOTHING_LEARNED)]
    if refused and on_purpose:
        reasons = "; ".join(f"{key} ({reason})" for key, reason in list(refused.items())[:_SHOWN])
        raise UsageError(
            f"{run} cannot go on with another {reasons}: expected changes of {', '.join(may_change(stage))}; for "
            "others begin a run that starts from this one's network"
        )
    if learned and not on_purpose:
        named = "; ".join(f"{key} was {changed[key][0]!r} and is {changed[key][1]!r}" for key in learned[:_SHOWN])
        more = f"; and {len(learned) - _SHOWN} more" if len(learned) > _SHOWN else ""
        raise UsageError(
            f"{run} was begun otherwise ({named}{more}): give it the same recipe, or another folder",
            option=None if refused else "resume",
        )
    return changed


def flat(table: object, where: str = "") -> dict[str, Any]:
    """Return nested tables with dotted keys, {"a": {"b": 1}} as {"a.b": 1}; tuples become lists, as in JSON."""
    if not isinstance(table, Mapping):
        return {where: list(table) if isinstance(table, tuple) else table}
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{where}.{key}" if where else str(key))
    return found


def judges_otherwise(changes: Mapping[str, object]) -> bool:
    """Return whether scores before and after these changes cannot be compared."""
    return any(key.startswith("validation.") and key not in _JUDGES_ALIKE for key in changes)


def _reasons(key: str, stage: str) -> Iterator[str]:
    """Yield why a key may not change, or nothing."""
    table, _, name = key.partition(".")
    if _is_below(key, _CHANGE_NOTHING_LEARNED):
        return
    if table == stage:
        if name in _FIXED_IN_STAGE:
            yield _FIXED_IN_STAGE[name]
    else:
        yield _FIXED.get(key) or _FIXED.get(table, _FIXED_NETWORK)


def _is_below(key: str, tables: tuple[str, ...]) -> bool:
    return any(key == table or key.startswith(f"{table}.") for table in tables)


def _is_of_other_stage(key: str, stage: str) -> bool:
    """Return whether a stage does not look at a key; stage 1 has no discriminator."""
    table = key.partition(".")[0]
    return table in (("stage2", "discriminator") if stage == "stage1" else ("stage1",))
