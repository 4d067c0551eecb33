"""`realesr train distill`: teaches a small network what a large one does."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import train_options as opt
from .training import messages_of_process, tell_network, torch_needed, warnings_in_lines

if TYPE_CHECKING:
    from realesr.engine import Engine
    from realesr.models.weights import Weights
    from realesr.train.distill.run import Distillation

    from .console import Messages

DISTILL_EXAMPLES = """\
realesr train distill --data photos --out runs/fast --trial   # does everything fit?
realesr train distill --teacher realesrgan-x4plus --data photos --out runs/fast
realesr train distill --data photos --out runs/fast --recipe distill_64x32
realesr train distill --teacher big.pth --data d --out o --init none --quiet
realesr train distill --data photos --out a --set stage1.bf16=false --device cpu
realesr train distill --data photos --out b --cache answers --gpus 4
realesr upscale photo.jpg -m runs/fast"""

Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=opt.NETWORK,
        help="The large network: a name of 'realesr models', a file, or a run's folder; of the same scale. Default: "
        "the recipe's.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=opt.RUN,
        help="Folder of the teacher's answers, for several runs. Default: the recipe's, else 'teacher' in the run's.",
    ),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|PATH",
        rich_help_panel=opt.NETWORK,
        help="distill_64x16, distill_64x32, distill_span, or a .toml file.",
    ),
]
Photos = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="PATH",
        show_default=False,
        rich_help_panel=opt.DATA,
        help="Photos: a folder with all below it, an image, or a .txt that lists images. May be given again.",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=opt.NETWORK,
        help="Where the small network starts: as in stage 1. Default: the recipe's init.",
    ),
]
Folder = Annotated[
    Path,
    typer.Option("--out", metavar="FOLDER", show_default=False, rich_help_panel=opt.RUN, help="The run's folder."),
]


def distill(
    data: Photos,
    out: Folder,
    teacher: Teacher = None,
    recipe: RecipeName = "distill_64x16",
    changes: opt.Changes = None,
    init: Init = None,
    cache: Cache = None,
    device: opt.Device = "auto",
    gpus: opt.Gpus = None,
    trial: opt.Trial = False,
    debug: opt.Debug = False,
    quiet: opt.Quiet = False,
) -> None:
    """Teach a small network what a large one does.

    The teacher's answers to patches of your photos, degraded and as they are, are made once, which takes longest, and
    kept. Then stage A learns them, and stage B brings their texture back, with a discriminator. The same command goes
    on where it was stopped, in any of the three. The path of the network goes to stdout; realesr upscale -m FOLDER
    takes it.
    """
    from . import console

    messages = messages_of_process(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        with torch_needed():
            from realesr.train.distill.run import Distillation

        options = Distillation(
            data=data,
            out=out,
            teacher=teacher,
            cache=cache,
            recipe=recipe,
            changes=changes or (),
            init=init,
            device=device,
            trial=trial,
        )
        run(options, gpus, messages)


def run(options: "Distillation", gpus: int | None, messages: "Messages") -> None:
    """Distil on this process's device, or have the answers made here and train on several GPUs."""
    from realesr.train import distributed
    from realesr.train.distill.run import ask, distill

    def open_teacher(model: "Weights | Path") -> "Engine":
        from realesr.engines import open_engine

        return open_engine(model, device=options.device if options.device in ("cpu", "cuda") else "auto")

    if gpus is not None and not distributed.is_torchrun():
        distributed.check_gpus(gpus, options.device)
        with messages.status() as show, warnings_in_lines(messages):
            ask(options, open_teacher=open_teacher, say=messages.say, show=show)
        raise typer.Exit(distributed.run_on_gpus(gpus, options.device, sys.argv[1:]))
    with messages.status() as show, warnings_in_lines(messages):
        network = distill(options, open_teacher=open_teacher, say=messages.say, show=show)
    tell_network(network, messages)
