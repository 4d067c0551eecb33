"""`realesr train`: trains a network in two stages, and lists the recipes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from realesr.errors import MissingDependency

from . import train_options as opt
from .help import CommandHelp, GroupHelp

GROUP_EXAMPLES = """\
realesr train stage1 --data photos --out runs/net
realesr train stage2 --data photos --init runs/net --out runs/gan
realesr train recipes                  # their names, and what they are for"""
STAGE1_EXAMPLES = """\
realesr train stage1 --data photos --out runs/net --recipe tiny_cpu  # minutes
realesr train stage1 --data photos --out runs/net    # x4plus: days on GPUs
realesr train stage1 --data photos --out runs/net --gpus 4
realesr train stage1 --data photos --out runs/net --debug  # before a long run
realesr train stage1 --data photos --out runs/net --set stage1.batch=4
realesr train stage1 --data photos --out runs/net --init none --quiet
realesr train stage1 --gt sharp --lq small --set data.pair_share=1 --out pairs
realesr train stage1 --data photos --val-gt large --val-lq small --out net
realesr train stage1 --data photos --out runs/net --device cuda"""
STAGE2_EXAMPLES = """\
realesr train stage2 --data photos --init runs/net --out runs/gan
realesr train stage2 --data photos --init runs/net --out runs/gan --gpus 4
realesr train stage2 --data photos --init runs/net --out runs/gan --debug
realesr train stage2 --data photos --init runs/net --out runs/gan --quiet
realesr train stage2 --data d --init runs/net --out gan --set stage2.gan=0.05
realesr train stage2 --data d --init runs/net --out gan --device cuda
realesr train stage2 --data d --init runs/net --out gan --vgg vgg19.pth
realesr train stage2 --data d --init realesrgan-x4plus --init-d d.pth --out o
realesr train stage2 --data d --init net.pth --recipe general_x4 --out gan
realesr train stage2 --gt sharp --lq small --init runs/net --out gan
realesr train stage2 --data d --val-gt large --val-lq small --init net --out o"""
RECIPES_EXAMPLES = """\
realesr train recipes                   # their names, and what they are for
realesr train recipes x4plus            # the file
realesr train recipes x4plus > my.toml  # a start for your own --recipe"""

train = typer.Typer(cls=GroupHelp, rich_markup_mode=None, no_args_is_help=True)


@train.callback(epilog=GROUP_EXAMPLES)
def about() -> None:
    """Train networks on your own photos."""


@train.command(cls=CommandHelp, epilog=STAGE1_EXAMPLES)
def stage1(
    out: opt.Out,
    data: opt.Data = None,
    gt: opt.Gt = None,
    lq: opt.Lq = None,
    val_gt: opt.ValGt = None,
    val_lq: opt.ValLq = None,
    recipe: opt.RecipeName = None,
    changes: opt.Changes = None,
    init: opt.Init = None,
    device: opt.Device = "auto",
    gpus: opt.Gpus = None,
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
    out: opt.Out,
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
    device: opt.Device = "auto",
    gpus: opt.Gpus = None,
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


@train.command(cls=CommandHelp, epilog=RECIPES_EXAMPLES)
def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="One, to be shown whole.")
    ] = None,
) -> None:
    """List the recipes, or show one."""
    from . import console

    with console.errors_reported(console.Messages()):
        with _torch_needed():
            from realesr.train.recipe import read_recipe, recipe_names, recipe_text

        if name is not None:
            console.result(recipe_text(name).rstrip())
            return
        rows = [(each, read_recipe(each).purpose) for each in recipe_names()]
        console.table("Recipes", ("name", "for"), rows)


def _run(gpus: int | None, *, debug: bool, quiet: bool, **fields: Any) -> None:
    """Train on this process's device or on several GPUs; `fields` are those of `realesr.train.request.Request`."""
    from . import console

    messages = console.Messages(quiet=quiet, debug=debug)
    with console.errors_reported(messages):
        with _torch_needed():
            from realesr.train import distributed, trainer
            from realesr.train.request import Request

        if gpus is not None and not distributed.is_torchrun():
            raise typer.Exit(distributed.run_on_gpus(gpus, fields["device"], sys.argv[1:]))
        with messages.status() as show:
            network = trainer.train(Request(debug=debug, **fields), say=messages.say, show=show)
        if network is not None:
            messages.say(f"to use it: realesr upscale photo.jpg -m {network}")
            console.result(str(network))


@contextmanager
def _torch_needed() -> Iterator[None]:
    """Raise MissingDependency, with the line that installs torch, where torch is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "torch":
            raise
        raise MissingDependency("training needs the package torch: run 'pip install \"realesr[train]\"'") from error
