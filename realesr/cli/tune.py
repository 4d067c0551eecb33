"""`realesr tune`: measures which engine is the fastest for a network on this machine, and keeps the answer."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from realesr.errors import EngineError, UsageError

from . import stopping
from .output_options import Debug, OneJson, Quiet

if TYPE_CHECKING:
    from realesr.engines.trial import Trial
    from realesr.engines.tuning import Answer, Setting
    from realesr.models.weights import Weights

    from .console import Messages

EXAMPLES = """\
realesr tune                          # for realesrgan-x4plus
realesr tune -m realesr-animevideov3  # each network has its own answer
realesr tune -m my-network.safetensors --seconds 120
realesr tune --json --quiet           # one JSON object
realesr tune --forget                 # delete all answers
realesr tune --debug"""


def tune(
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|PATH",
            help="A name that 'realesr models' lists, or a file of weights: .safetensors, .pth, ncnn's .bin.",
        ),
    ] = "realesrgan-x4plus",
    seconds: Annotated[
        float, typer.Option(metavar="S", min=1, help="Seconds after which nothing new is started.")
    ] = 45,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete the answers of all networks, measure nothing.")
    ] = False,
    json: OneJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure what is the fastest here, and keep the answer.

    Every installed engine enlarges the same tile; then options, numbers of threads and larger tiles are tried with the
    fastest. 'realesr upscale' uses the answer where engine and precision are left at auto. Precisions below fp32 count
    only where the result is within 45 dB of it. Let nothing else run meanwhile. An answer holds until the processor,
    the GPUs, the engines or the network change.

    Exit codes: 0 an answer is kept, 1 no engine works.
    """
    from .console import Messages, errors_reported

    messages = Messages(quiet=quiet, debug=debug)
    with errors_reported(messages):
        if forget:
            forget_all(json=json)
        else:
            measure(model, seconds, messages, json=json)


def forget_all(*, json: bool) -> None:
    """Delete all answers and print their paths."""
    from realesr.engines.tuning import forget

    from . import console

    paths = forget()
    if json:
        console.json_line({"forgotten": [str(path) for path in paths]})
    else:
        console.result("\n".join(f"forgotten: {path}" for path in paths) or "there was nothing to forget")


def measure(model: str, seconds: float, messages: "Messages", *, json: bool) -> None:
    """Try the settings, keep the answer, and print both."""
    from realesr.engines.trial import answer_from
    from realesr.engines.tuning import keep

    from . import console

    weights = load(model, messages)
    done = try_settings(weights, seconds, messages)
    answer = answer_from(done)
    if answer is None:
        raise EngineError("no engine works here: see 'realesr doctor'")
    path = keep(weights, answer)
    if json:
        console.json_line({"network": weights.name, "trials": list(map(asdict, done)), **asdict(answer), "kept": path})
    else:
        console.table(f"{weights.name}, the fastest first", COLUMNS, table_rows(done))
        console.result(f"kept: {answer_in_words(answer)}")
        messages.say(f"in {path}; 'realesr tune --forget' deletes it")


def load(model: str, messages: "Messages") -> "Weights":
    """Load the network's weights.

    Raises:
        UsageError: the network is an .onnx file.
    """
    from realesr.models.zoo import load_model

    with messages.download(model) as on_download:
        loaded = load_model(model, on_progress=on_download)
    if isinstance(loaded, Path):
        raise UsageError(
            f"got {model}, expected weights (.safetensors, .pth, ncnn): an .onnx file has one engine on a CPU"
        )
    return loaded


def try_settings(weights: "Weights", seconds: float, messages: "Messages") -> list["Trial"]:
    """Return a trial of every setting that there is time for, and print each as it ends."""
    from realesr.engines import model_facts
    from realesr.engines.trial import trials
    from realesr.options import NetworkOptions
    from realesr.runtime.tiling import overlap_for

    done = []
    overlap_px = overlap_for(model_facts(weights), NetworkOptions(model=weights.name))
    for trial in trials(weights, overlap_px=overlap_px, seconds=seconds):
        stopping.check()
        messages.say("  ".join(cells(trial)))
        done.append(trial)
    return done


COLUMNS = ("engine", "device", "precision", "options", "threads", "tile px", "us/px", "dB to fp32")


def table_rows(done: Sequence["Trial"]) -> list[tuple[str, ...]]:
    """Return the rows of the table: the fastest first, those that failed last."""
    return [cells(trial) for trial in sorted(done, key=lambda trial: trial.us_per_px or float("inf"))]


def cells(trial: "Trial") -> tuple[str, ...]:
    """Return one row of the table; a trial that failed has its reason in place of the time."""
    setting = trial.setting
    threads, tile = str(setting.threads or "all"), str(setting.tile_px or "-")
    head = (setting.engine, setting.device, setting.precision, options_in_words(setting) or "-", threads, tile)
    if trial.us_per_px is None:
        return (*head, trial.problem, "-")
    return (*head, f"{trial.us_per_px:.4g}", "-" if trial.psnr_db is None else f"{trial.psnr_db:.1f}")


def answer_in_words(answer: "Answer") -> str:
    """Return the answer in one line."""
    best = answer.best
    options = options_in_words(best) + ", " if best.options else ""
    threads = "all cores" if best.threads is None else f"{best.threads} threads"
    also = "" if answer.fp32 == best else f"; in fp32 {answer.fp32.engine}"
    tiles = "tiles as large as the memory allows" if best.tile_px is None else f"tiles of {best.tile_px} px"
    return f"{best.engine} {best.precision} on {best.device}, {options}{threads}, {tiles}{also}"


def options_in_words(setting: "Setting") -> str:
    """Return the options like "mode=graphs join=device"; empty where all are at their default."""
    return " ".join(f"{name}={value}" for name, value in setting.options.items())
