"""Checks what `waiting_is_an_error` does to torch's mode, with torch's functions, which need a GPU, replaced."""

import warnings

import pytest
import torch

from tests.train.waiting import PROTOTYPE, waiting_is_an_error


class _Mode:
    """Torch's mode: it is set first, then a warning may be raised as an error."""

    def __init__(self) -> None:
        self.value: int | str = 0
        self.message = f"{PROTOTYPE} and does not yet detect all synchronizing operations"

    def get(self) -> int | str:
        return self.value

    def set(self, value: int | str) -> None:
        self.value = value
        warnings.warn(self.message, UserWarning, stacklevel=1)


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> _Mode:
    mode = _Mode()
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", mode.get)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", mode.set)
    return mode


def test_the_mode_is_on_within_and_off_afterwards_without_a_warning(mode: _Mode) -> None:
    with waiting_is_an_error():
        within = mode.value
    assert (within, mode.value) == ("error", 0)


def test_the_mode_is_put_back_after_an_error(mode: _Mode) -> None:
    with pytest.raises(RuntimeError, match="synchronizing"), waiting_is_an_error():
        raise RuntimeError("called a synchronizing CUDA operation")
    assert mode.value == 0


def test_another_warning_still_counts_within(mode: _Mode) -> None:
    with pytest.raises(UserWarning, match="something else"), waiting_is_an_error():
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert mode.value == 0
