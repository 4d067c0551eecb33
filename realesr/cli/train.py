"""`realesr train`: trains a network in two stages, and lists the recipes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import train_options as opt
from .distill import DISTILL_EXAMPLES, distill
from .help import CommandHelp, GroupHelp
from .training import messages_of_process, tell_network, torch_needed, warnings_in_lines

GROUP_EXAMPLES = """\
realesr train stage1 --data photos --out runs/net
realesr train stage2 --data photos --init runs/net --out runs/gan
realesr train resume runs/gan          # goes on, with all options of the run
realesr train distill --data photos --out runs/fast  # learns from a large one
realesr train recipes                  # their names, and what they are for"""
STAGE1_EXAMPLES = """\
realesr train stage1 --data photos --out runs/net --recipe tiny_cpu  # minutes
realesr train stage1 --data photos --out runs/net    # x4plus: days on GPUs
realesr train stage1 --data photos --out runs/net --gpus 4
realesr train stage1 --data photos --out runs/net --trial  # before a long run
realesr train stage1 --data photos --init realesr-animevideov3  # fine-tuning
realesr train stage1 --data photos --out runs/net --set stage1.batch=4
realesr train stage1 --data photos --out runs/net --init none --quiet
realesr train stage1 --gt sharp --lq small --set data.pair_share=1 --out pairs
realesr train stage1 --data photos --val-gt large --val-lq small --out net
realesr train stage1 --data photos --out runs/net --device cuda"""
STAGE2_EXAMPLES = """\
realesr train stage2 --data photos --init runs/net --out runs/gan
realesr train stage2 --data photos --init runs/net --out runs/gan --gpus 4
realesr train stage2 --data photos --init runs/net --out runs/gan --trial
realesr train stage2 --data photos --init runs/net --out runs/gan --quiet
realesr train stage2 --data d --init runs/net --out gan --set stage2.gan=0.05
realesr train stage2 --data d --init runs/net --out gan --device cuda
realesr train stage2 --data d --init runs/net --out gan --vgg vgg19.pth
realesr train stage2 --data d --init realesrgan-x4plus --init-d d.pth --out o
realesr train stage2 --data d --init runs/gan --init-d runs/gan --out gan2
realesr train stage2 --data d --init net.pth --recipe general_x4 --out gan
realesr train stage2 --gt sharp --lq small --init runs/net --out gan
realesr train stage2 --data d --val-gt large --val-lq small --init net --out o"""
RESUME_EXAMPLES = """\
realesr train resume runs/net
realesr train resume runs/gan --set stage2.learning_rate=5e-5
realesr train resume runs/net --set stage1.iterations=2_000_000 --quiet
realesr train resume runs/net --device cpu
realesr train resume runs/net --gpus 4"""
RECIPES_EXAMPLES = """\
realesr train recipes                   # their names, and what they are for
realesr train recipes x4plus            # the file
realesr train recipes x4plus > my.toml  # a start for your own --recipe"""

if TYPE_CHECKING:
    from realesr.train.request import Request

    from .console import Messages

train = typer.Typer(cls=GroupHelp, rich_markup_mode=None, no_args_is_help=True)


@train.callback(epilog=GROUP_EXAMPLES)
def about() -> None:
    """Train networks on your own photos."""


@train.command(cls=CommandHelp, epilog=STAGE1_EXAMPLES)
def stage1(
    data: opt.Data = None,
    gt: opt.Gt = None,
    lq: opt.Lq = None,
    val_gt: opt.ValGt = None,
    val_lq: opt.ValLq = None,
    recipe: opt.RecipeName = None,
    changes: opt.Changes = None,
    init: opt.Init = None,
    out: opt.Out = None,
    device: opt.Device = "auto",
    gpus: opt.Gpus = None,
    trial: opt.Trial = False,
    debug: opt.Debug = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train for the smallest error: sure, smooth.

    Photos are degraded during training; nothing has to be prepared. The same command continues a run that was stopped.
    The path of the network goes to stdout; realesr upscale -m FOLDER takes it.

    On several machines, run on each: torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint
    HOST:29500 -m realesr train stage1 --data photos --out runs/net
    """
    _run(
        gpus,
        debug=debug,
        quiet=quiet,
        stage="stage1",
        out=out,
        trial=trial,
        data=data,
        gt=gt,
        lq=lq,
        val_gt=val_gt,
        val_lq=val_lq,
        recipe=recipe,
        changes=changes,
        init=init,
        device=device,
    )


@train.command(cls=CommandHelp, epilog=STAGE2_EXAMPLES)
def stage2(
    data: opt.Data = None,
    gt: opt.Gt = None,
    lq: opt.Lq = None,
    val_gt: opt.ValGt = None,
    val_lq: opt.ValLq = None,
    recipe: opt.RecipeName = None,
    changes: opt.Changes = None,
    init: opt.Init = None,
    init_d: opt.InitD = None,
    vgg: opt.Vgg = None,
    out: opt.Out = None,
    device: opt.Device = "auto",
    gpus: opt.Gpus = None,
    trial: opt.Trial = False,
    debug: opt.Debug = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train for looks, with a discriminator, from what stage 1 learned.

    Without --recipe, it is that of the run in --init. The path of the network goes to stdout; realesr upscale -m FOLDER
    takes it.
    """
    _run(
        gpus,
        debug=debug,
        quiet=quiet,
        stage="stage2",
        out=out,
        trial=trial,
        data=data,
        gt=gt,
        lq=lq,
        val_gt=val_gt,
        val_lq=val_lq,
        recipe=recipe,
        changes=changes,
        init=init,
        init_d=init_d,
        vgg=vgg,
        device=device,
    )


@train.command(cls=CommandHelp, epilog=RESUME_EXAMPLES)
def resume(
    run: opt.Run,
    changes: opt.ResumeChanges = None,
    device: opt.ResumeDevice = None,
    gpus: opt.ResumeGpus = None,
    debug: opt.Debug = False,
    quiet: opt.Quiet = False,
) -> None:
    """Go on with a run, as it was begun.

    Images, recipe and options are those of the run. What --set may change: learning rates and their schedule, weights
    of losses, iterations, what concerns arithmetic, validation and saving; an error lists the keys. It may not change
    the network, the degradation, nor what decides which samples an iteration has. Changes are told and logged.
    """
    from . import console

    messages = messages_of_process(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        with torch_needed():
            from realesr.train.request import processes_of, resumed

        request = resumed(run, changes=changes or (), device=device)
        before = processes_of(run)
        _train(request, gpus if gpus is not None or before == 1 else before, messages)


@train.command(cls=CommandHelp, epilog=RECIPES_EXAMPLES)
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="One, to be shown whole.")
    ] = None,
) -> None:
    """List the recipes, or show one."""
    from . import console

    with console.errors_reported(console.Messages()):
        with torch_needed():
            from realesr.train.recipe import recipe_names, recipe_purpose, recipe_text

        if name is not None:
            console.result(recipe_text(name).rstrip())
            return
        console.table("Recipes", ("name", "for"), [(each, recipe_purpose(each)) for each in recipe_names()])


train.command(cls=CommandHelp, epilog=DISTILL_EXAMPLES)(distill)


def _run(gpus: int | None, *, debug: bool, quiet: bool, out: Path | None, **fields: Any) -> None:
    """Begin a run, or go on with it; `fields` are those of `realesr.train.request.Request`."""
    from . import console

    messages = messages_of_process(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        with torch_needed():
            from realesr.train.request import Request, default_folder

        folder = out or default_folder(fields["stage"], fields["recipe"], fields["init"])
        _train(Request(out=folder, **fields), gpus, messages)


def _train(request: "Request", gpus: int | None, messages: "Messages") -> None:
    """Train on this process's device or on several GPUs."""
    from realesr.train import distributed, trainer

    if gpus is not None and not distributed.is_torchrun():
        raise typer.Exit(distributed.run_on_gpus(gpus, request.device, sys.argv[1:]))
    with messages.status() as show, warnings_in_lines(messages):
        network = trainer.train(request, say=messages.say, show=show)
    tell_network(network, messages)
