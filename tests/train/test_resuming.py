"""Says what may change where a run goes on, and what may not."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from realesr.errors import UsageError
from realesr.train.recipe import Recipe, ValidationOptions, read_recipe
from realesr.train.resuming import changes_since, judges_otherwise, may_change

RUN = Path("runs/net")


def compare(*changes: str, stage: str = "stage2", on_purpose: bool = True) -> dict[str, tuple[Any, Any]]:
    """Compare tiny_cpu with itself after changes."""
    before, now = ({"stage": stage, **read_recipe("tiny_cpu", list(each)).as_dict()} for each in ((), changes))
    return changes_since(before, now, RUN, stage=stage, on_purpose=on_purpose)


def test_nothing_changed_is_nothing() -> None:
    assert compare() == compare(on_purpose=False) == {}


def test_a_learning_rate_changes_on_purpose_only() -> None:
    assert compare("stage2.learning_rate=5e-5") == {"stage2.learning_rate": (2e-4, 5e-5)}
    with pytest.raises(UsageError, match=r"begun otherwise \(stage2.learning_rate was 0.0002 and is 5e-05\)") as caught:
        compare("stage2.learning_rate=5e-5", on_purpose=False)
    assert caught.value.option == "resume"


@pytest.mark.parametrize("on_purpose", [False, True])
def test_options_of_the_other_stage_and_of_validation_do_not_matter(on_purpose: bool) -> None:
    found = compare("stage1.batch=1", "stage1.l1=7", "validation.every=3", "data.workers=0", on_purpose=on_purpose)
    assert set(found) == {"validation.every", "data.workers"}
    assert compare("stage2.gan=0.2", stage="stage1", on_purpose=on_purpose) == {}
    assert compare("discriminator.features=8", stage="stage1", on_purpose=on_purpose) == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("stage2.batch=8", "stage2.batch (the samples of an iteration follow from it)"),
        ("data.read_px=160", "data.read_px (the samples of an iteration follow from it)"),
        ("stage2.gan_details=true", "stage2.gan_details (the discriminator has learned what it sees)"),
        ("validation.hold_out=3", "validation.hold_out (the images that are trained on follow from it)"),
        ("seed=3", "seed (the samples of an iteration follow from it)"),
        ("degrade.photons=300", "degrade.photons (the run learns to undo this degradation)"),
        ("compact.convs=3", "compact.convs (its weights fit no other network)"),
        ("discriminator.features=8", "discriminator.features (its weights fit no other network)"),
        ("init=a.pth", "init (the run has begun there)"),
        ("stage2.l1_sharp=false", "stage2.l1_sharp (the run learns, and is scored against, this truth)"),
    ],
)
def test_what_may_not_change_is_refused_with_the_reason_and_with_what_may(change: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        compare(change, "stage2.learning_rate=1e-5")
    assert f"{RUN} cannot go on with another {reason}: expected changes of " in str(caught.value)
    assert "validation.lpips, save.*, log_every" in str(caught.value)
    assert "stage2.learning_rate" in str(caught.value)


def test_every_key_is_free_or_fixed() -> None:
    keys = {each.name for each in fields(Recipe)}
    assert {"purpose", "validation.every", "save.*", "log_every"} <= set(may_change("stage1"))
    named = {key.partition(".")[2] for key in may_change("stage1") if key.startswith("validation.")}
    assert named == {each.name for each in fields(ValidationOptions)} - {"hold_out"}
    assert {"stage1.learning_rate", "stage1.gan", "stage1.iterations"} <= set(may_change("stage1"))
    assert not {"stage1.batch", "stage2.gan", "seed"} & set(may_change("stage1"))
    assert keys >= {"seed", "degrade"}


def test_another_validation_judges_otherwise_but_not_more_often() -> None:
    assert judges_otherwise({"validation.crops": 1})
    assert not judges_otherwise({"validation.every": 1, "validation.grid": 2, "validation.lpips": 3, "stage1.l1": 4})
