"""Keeps several students of a distillation in one file, takes them out again, and scores them."""

from collections.abc import Mapping
from pathlib import Path

from distil_patches import HeldOut, as_float
from distil_steps import laplacian
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from realesr.train.checkpoint import write_file
from realesr.train.metrics import psnr

Scores = dict[str, float]

MOST = 6
"""Students in a file: six of 0.62 M parameters take 15 MB."""

BORDER_PX = 4
"""Border left out of PSNR at each side, as in validations."""


class Snapshots:
    """A .safetensors file that is written anew with each student; keys are "name of the student/key"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._states: dict[str, dict[str, Tensor]] = {}

    def add(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Write one more student; the oldest gives way where there are too many."""
        self._states[name] = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
        while len(self._states) > MOST:
            del self._states[next(iter(self._states))]
        named = {f"{name}/{key}": value for name, state in self._states.items() for key, value in state.items()}
        content = save(named)
        write_file(self._path, lambda part: part.write_bytes(content))


def read_snapshots(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts of the students in a file by their names."""
    states: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        for key in list(file.keys()):
            name, _, own = key.partition("/")
            states.setdefault(name, {})[own] = file.get_tensor(key)
    return states


def blended(state: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights between those of two students, one of which was trained on from the other.

    Source: Wang et al. 2018, "ESRGAN", arXiv 1809.00219, section 3.4 (network interpolation).
    """
    return {key: value.lerp(other[key], share) for key, value in state.items()}


def scores(enlarged: Tensor, held: HeldOut) -> Scores:
    """Return mean scores over the held-out patches; only the degraded ones have a ground truth.

    Args:
        enlarged: (N, 3, H, W) in [0, 1].
        held: the teacher's answers and the truth.

    Returns:
        PSNR in dB on RGB; mean absolute Laplacians as shares of the teacher's.
    """
    answers, known = as_float(held.patches.answers), len(held.truth)
    to_teacher = psnr(enlarged, answers, border_px=BORDER_PX).clamp(max=99)
    found = {
        "psnr_to_teacher_degraded": to_teacher[:known].mean(),
        "psnr_to_teacher_native": to_teacher[known:].mean(),
        "psnr_to_truth": psnr(enlarged[:known], as_float(held.truth), border_px=BORDER_PX).mean(),
        "laplacian": laplacian(enlarged).abs().mean() / laplacian(answers).abs().mean(),
        "laplacian_degraded": laplacian(enlarged[:known]).abs().mean() / laplacian(answers[:known]).abs().mean(),
    }
    return {name: float(value) for name, value in found.items() if len(enlarged) > known or "native" not in name}
