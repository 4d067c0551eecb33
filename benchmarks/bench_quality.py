"""Set5 at x4 through the command itself, by files: PSNR on Y and on RGB.

    python benchmarks/bench_quality.py PATH/TO/Set5

The folder holds the usual pairs img_00N_SRF_4_LR.png and img_00N_SRF_4_HR.png. As is usual, 4 px are cropped at each
border, and Y is that of ITU-R BT.601 in the form of MATLAB's rgb2ycbcr (16 to 235).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import report
from numpy.typing import NDArray
from PIL import Image

from realesr.scores.reference import BORDER_PX, psnr_y


def psnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 255]."""
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


def measure(low: Path, high: Path, options: list[str]) -> dict[str, Any]:
    """Enlarge one image by the command and compare."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.png"
        command = [
            sys.executable,
            "-m",
            "realesr",
            "upscale",
            str(low),
            "-o",
            str(target),
            "-s",
            "4",
            "--quiet",
            *options,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = np.asarray(Image.open(target).convert("RGB"))
    truth = np.asarray(Image.open(high).convert("RGB"))[: result.shape[0], : result.shape[1]]
    inner = np.s_[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    on_rgb = psnr(result[inner].astype(np.float64), truth[inner].astype(np.float64))
    return {"image": low.stem, "psnr_y_db": psnr_y(result, truth), "psnr_rgb_db": on_rgb}


def main() -> None:
    """Measure every pair, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set5", type=Path)
    parser.add_argument("--options", default="-m realesrgan-x4plus --precision fp32", help="for `realesr upscale`")
    arguments = parser.parse_args()
    pairs = [(low, low.with_name(low.name.replace("_LR", "_HR"))) for low in sorted(arguments.set5.glob("*_LR.png"))]
    rows = [measure(low, high, arguments.options.split()) for low, high in pairs]
    keys = ("psnr_y_db", "psnr_rgb_db")
    rows.append({"image": "mean", **{key: float(np.mean([row[key] for row in rows])) for key in keys}})
    report.show(f"Set5 x4, {arguments.options}", rows)
    report.save("quality", rows, options=arguments.options)


if __name__ == "__main__":
    main()
