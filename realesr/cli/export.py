"""`realesr export`: writes a network as an ONNX file or a TensorRT engine."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from realesr.errors import UsageError
from realesr.models.graph_options import DEFAULT_OPSET, NEWEST_OPSET, OLDEST_OPSET

from .options import DENOISE_HELP, OUTPUT, Debug, Json, Quiet

if TYPE_CHECKING:
    from realesr.export.proof import Proof

    from .console import Messages

GRAPH = "Graph"
BUILD = "TensorRT"

EXAMPLES = """\
realesr export --fp16              # realesrgan-x4plus-fp16.onnx, here
realesr export realesrgan-x4plus-anime --to onnx -o a.onnx
realesr export runs/gan --fp16 --to tensorrt  # an engine for this GPU
realesr export realesrgan-x4plus --to tensorrt-rtx --for sm89,sm120 -o engines
realesr export --to tensorrt --workspace-mb 2048 --timing-cache gpu.bin
realesr export --to tensorrt-rtx --for sm89 --limit-minutes 5
realesr export my-network.safetensors --overwrite --quiet
realesr export realesr-general-x4v3 --denoise 0.3 --json
realesr export my.pth --denoise 0.3 --denoise-with soft.pth
realesr export realesr-animevideov3 --shape 1x256x256 --opset 17
realesr export realesr-animevideov3 --uint8 --debug
realesr upscale photo.jpg -m realesrgan-x4plus-fp16.onnx"""

Model = Annotated[
    str,
    typer.Argument(
        metavar="NAME|PATH",
        help="A name that 'realesr models' lists, a file of weights, or the folder of a training run; "
        "for TensorRT an .onnx file as well.",
    ),
]
To = Annotated[
    Literal["onnx", "tensorrt", "tensorrt-rtx"] | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="onnx, tensorrt (for this machine's GPU) or tensorrt-rtx (for any GPU, without one). Default: onnx, and "
        "with --fp16 an engine beside it, where TensorRT is installed.",
    ),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="LIST",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="GPUs that tensorrt-rtx builds for, by compute capability, like sm89,sm120. Default: Ampere and later.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        show_default=False,
        rich_help_panel=OUTPUT,
        help="A file, or a folder that is there. Default: the network's name in the current folder.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", rich_help_panel=OUTPUT, help="Replace a file that is there already.")
]
Fp16 = Annotated[
    bool,
    typer.Option(
        "--fp16",
        rich_help_panel=GRAPH,
        help="Half precision between input and output. Layers that lose too much in it stay float32.",
    ),
]
Opset = Annotated[
    int,
    typer.Option(metavar="N", rich_help_panel=GRAPH, help=f"Operator set of ONNX, {OLDEST_OPSET} to {NEWEST_OPSET}."),
]
Shape = Annotated[
    str | None,
    typer.Option(
        "--shape",
        metavar="NxHxW",
        show_default=False,
        rich_help_panel=GRAPH,
        help="The one batch, height and width that the result takes, like 1x256x256. Default: all.",
    ),
]
Uint8 = Annotated[
    bool,
    typer.Option(
        "--uint8",
        rich_help_panel=GRAPH,
        help="Input and output are integers from 0 to 255, converted inside the graph: a quarter of the copies.",
    ),
]
Denoise = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        show_default=False,
        rich_help_panel=GRAPH,
        help=DENOISE_HELP,
    ),
]
DenoiseWith = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=GRAPH,
        help="What --denoise 0 gives: another network of the same architecture, scale and size.",
    ),
]
WorkspaceMb = Annotated[
    int | None,
    typer.Option(
        metavar="MB",
        show_default=False,
        rich_help_panel=BUILD,
        help="Most GPU memory that one layer may use beside its input and output, in MiB. Default: 4096.",
    ),
]
LimitMinutes = Annotated[
    float | None,
    typer.Option(
        metavar="N", show_default=False, rich_help_panel=BUILD, help="The builder is ended after this. Default: 30."
    ),
]
TimingCache = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        rich_help_panel=BUILD,
        help="Measurements of earlier builds, read and written: the next build is faster.",
    ),
]


def export(
    model: Model = "realesrgan-x4plus",
    to: To = None,
    targets: For = None,
    output: Output = None,
    overwrite: Overwrite = False,
    fp16: Fp16 = False,
    opset: Opset = DEFAULT_OPSET,
    shape: Shape = None,
    uint8: Uint8 = False,
    denoise: Denoise = None,
    denoise_with: DenoiseWith = None,
    workspace_mb: WorkspaceMb = None,
    limit_minutes: LimitMinutes = None,
    timing_cache: TimingCache = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a network as a file for other programs and GPUs.

    Every file is first compared with the float32 network, on pictures; it gets its name only if it computes the same.
    A JSON beside it has what it is, from what it was made, and the figures of that proof. The path of each file goes
    to stdout, the figures to stderr; realesr upscale -m FILE takes it.

    Exit codes: 0 done, 1 failed or not proven, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        from realesr.export.request import ExportOptions
        from realesr.export.run import Listener, export_network

        options = ExportOptions(
            model=model,
            to=to,
            output=None if output is None else output.expanduser(),
            overwrite=overwrite,
            precision="fp16" if fp16 else "fp32",
            opset=opset,
            shape_nhw=None if shape is None else parsed_shape(shape),
            uint8=uint8,
            denoise=denoise,
            denoise_with=denoise_with,
            compute_capabilities=() if targets is None else tuple(targets.lower().split(",")),
            workspace_mb=workspace_mb,
            limit_minutes=limit_minutes,
            timing_cache=None if timing_cache is None else timing_cache.expanduser(),
        )
        with messages.download(model) as on_download:
            listener = Listener(
                say=messages.say,
                on_proof=lambda proof: show_proof(proof, messages),
                on_download=on_download,
                on_build=quarters(messages.say),
            )
            artefacts = export_network(options, listener)
        for artefact in artefacts:
            show_artefact(artefact.path, artefact.facts, messages)
            if json:
                console.json_line({"path": artefact.path, **artefact.facts})
            else:
                console.result(str(artefact.path))


def parsed_shape(text: str) -> tuple[int, int, int]:
    """Parse a batch, height and width: "1x256x192" -> (1, 256, 192).

    Raises:
        UsageError: the text has another form.
    """
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if found is None:
        raise UsageError(f"got --shape {text}, expected batch x height x width, like 1x256x256")
    count, height, width = map(int, found.groups())
    return count, height, width


def quarters(say: Callable[[str], None]) -> Callable[[float, str], None]:
    """Return a callback that prints each quarter of a build once."""
    printed = 0

    def on_build(share: float, phase: str) -> None:
        nonlocal printed
        if int(share * 4) > printed:
            printed = int(share * 4)
            say(f"{printed * 25} % built")

    return on_build


def show_proof(proof: "Proof", messages: "Messages") -> None:
    """Print the figures of every picture as a table on stderr."""
    limits = proof.tolerance
    required = f"at least {limits.min_psnr_db:g} dB"
    if limits.max_levels < 255:
        required += f" and at most {limits.max_levels:g} levels"
    rows = [
        (row.picture, " x ".join(map(str, row.shape)), f"{row.max_levels:.3f}", f"{row.mean_levels:.4f}",
         f"{row.psnr_db:.1f}" if row.max_levels else "equal")
        for row in proof.rows
    ]  # fmt: skip
    verdict = "holds" if proof.holds else "FAILS"
    title = f"{proof.of}: {required}: {verdict}"
    messages.table(title, ("picture", "shape", "max of 255", "mean of 255", "PSNR dB"), rows)


def show_artefact(path: Path, facts: dict[str, Any], messages: "Messages") -> None:
    """Print one line on stderr for a file that was written, and one for layers that stayed float32."""
    from .console import megabytes

    if isinstance(facts.get("proof"), str):
        messages.say(f"{path.name}: {facts['proof']}")
    kept = facts.get("fp32_layers")
    if kept:
        messages.say(f"{path.name}: float32 stayed {', '.join(kept)}")
    messages.say(f"{path.name}  {facts['precision']}, {megabytes(path.stat().st_size)}, described in {path.name}.json")
