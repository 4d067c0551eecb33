"""Scores the students of a distillation on patches that are held out."""

from distil_patches import HeldOut, as_float
from distil_steps import laplacian
from torch import Tensor

from realesr.train.metrics import psnr

Scores = dict[str, float]

BORDER_PX = 4
"""Border left out of PSNR at each side, as in validations."""


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
