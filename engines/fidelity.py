"""Fidelity of bf16: how near a network's results are to those in float32, as measured, and what is near enough."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realesr.models.weights import Weights

NEAR_ENOUGH_DB = 45.0
"""The automatic precision stays above this: PSNR to the float32 result, the least of the images that were tried."""

BF16_DB = {
    "e0adbaf6c011eabe0e70b7da569482465bae42eba7a86ef58e23d0917f5c5edc": 46.5,  # realesrgan-x4plus, ncnn's files
    "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1": 46.5,  # realesrgan-x4plus, .pth
    "6bf6fabd8d2c5d854f5f1ff69bbc8c8e69ffd55cb3d5a72018ebc328284b22c6": 54.6,  # realesr-animevideov3, ncnn's files
    "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d": 54.6,  # realesr-animevideov3, .pth
}
"""SHA-256 of the weights -> PSNR in dB of OpenVINO's bf16 to its float32, on a processor with AVX-512-BF16: the least
of ten images (realesrgan-x4plus), one photo (realesr-animevideov3)."""


def bf16_is_measured(weights: "Weights") -> bool:
    """Return whether these very weights were measured to be near enough in bf16."""
    return BF16_DB.get(weights.sha256, 0.0) >= NEAR_ENOUGH_DB


def psnr_db(mean_square_error: float) -> float:
    """Return the peak signal-to-noise ratio of values whose peak is 1: infinite for equal values; NaN stays NaN."""
    return math.inf if mean_square_error == 0 else -10 * math.log10(mean_square_error)
