"""Checks the processor's features as read from texts like Linux's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from realesr.machine import processor

XEON = (
    "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nprocessor\t: 1\nmodel name\t: x\n"
)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    for kept in (processor.flags, processor.name):
        kept.cache_clear()
    yield
    for kept in (processor.flags, processor.name):
        kept.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str | None) -> None:
    path = folder / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(processor, "_CPUINFO", path)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def test_features_and_name_are_the_first_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, XEON)
    assert processor.name() == "Xeon"
    assert processor.has_fast_bf16()


@pytest.mark.parametrize(
    ("limit", "expected"), [("AVX512_CORE", False), ("avx2", False), ("AVX512_CORE_BF16", True), ("ALL", True)]
)
def test_bf16_can_be_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, expected: bool) -> None:
    pretend(monkeypatch, tmp_path, XEON)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert processor.has_fast_bf16() is expected


@pytest.mark.parametrize(
    ("limit", "expected"), [("", True), ("ALL", True), ("AVX512_CORE_BF16", False), ("AVX512_CORE_AMX", True)]
)
def test_amx_can_be_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, expected: bool) -> None:
    pretend(monkeypatch, tmp_path, "flags : fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert processor.has_fast_bf16()
    assert processor.has_amx() is expected


def test_bf16_alone_is_no_amx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, XEON)
    assert not processor.has_amx()


@pytest.mark.parametrize("text", [None, "", "flags: fpu avx2\n", "Features : fp asimd\n"])
def test_no_feature_is_claimed_that_the_system_does_not_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    pretend(monkeypatch, tmp_path, text)
    assert not processor.has_fast_bf16()
