"""Checks that a run says where bfloat16 would only slow it down."""

from pathlib import Path

import pytest
from PIL import Image

from realesr.train import opening
from realesr.train.request import Request
from realesr.train.trainer import train

SHORT = ("stage1.iterations=1", "stage1.batch=1", "data.workers=0", "validation.every=0")


@pytest.mark.parametrize(
    ("is_fast", "bf16", "warns"), [(False, "true", True), (False, "false", False), (True, "true", False)]
)
def test_bfloat16_that_is_imitated_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_fast: bool, bf16: str, warns: bool
) -> None:
    monkeypatch.setattr(opening, "has_fast_bf16", lambda: is_fast)
    Image.effect_noise((160, 160), 90).convert("RGB").save(tmp_path / "photo.png")
    changes = [*SHORT, f"stage1.bf16={bf16}", "compact.features=4", "compact.convs=1", "stage1.crop_px=16"]
    request = Request(
        stage="stage1",
        out=tmp_path / "run",
        data=[tmp_path / "photo.png"],
        recipe="tiny_cpu",
        changes=[*changes, "degrade.pool=0"],
        device="cpu",
    )
    said: list[str] = []
    train(request, say=said.append, show=lambda _: None)
    assert any("stage1.bf16=false is many times as fast" in line for line in said) == warns
