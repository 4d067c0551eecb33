"""The options of `realesr train`: names and help. Their values are checked in `realesr.train.request`."""

from pathlib import Path
from typing import Annotated

import typer

DATA = "Images"
NETWORK = "Network"
RUN = "Run"

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        metavar="PATH",
        show_default=False,
        rich_help_panel=DATA,
        help="Good photos: a folder with all below it, an image, or a .txt that lists images. May be given again.",
    ),
]
Gt = Annotated[
    list[Path] | None,
    typer.Option(
        "--gt",
        metavar="PATH",
        show_default=False,
        rich_help_panel=DATA,
        help="The large images of given pairs; they pair with --lq by name. data.pair_share of the recipe mixes both.",
    ),
]
Lq = Annotated[
    list[Path] | None,
    typer.Option(
        "--lq", metavar="PATH", show_default=False, rich_help_panel=DATA, help="The small images of given pairs."
    ),
]
ValGt = Annotated[
    Path | None,
    typer.Option(
        "--val-gt",
        metavar="PATH",
        show_default=False,
        rich_help_panel=DATA,
        help="Large images to validate on. Default: some of --data are held out.",
    ),
]
ValLq = Annotated[
    Path | None,
    typer.Option(
        "--val-lq", metavar="PATH", show_default=False, rich_help_panel=DATA, help="Small images to validate on."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=NETWORK,
        help="One of 'realesr train recipes', or a .toml file. Default: that of the run in --init; finetune, which is "
        "for any network, where --init is another one; else x4plus.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        rich_help_panel=NETWORK,
        help="Changes the recipe, like stage1.batch=4. May be given again.",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="NAME|PATH",
        show_default=False,
        rich_help_panel=NETWORK,
        help="Where the network starts: a run's folder, a file, a name of 'realesr models', or none. "
        "Default: the recipe's init in stage 1; stage 2 asks for one.",
    ),
]
InitD = Annotated[
    Path | None,
    typer.Option(
        "--init-d",
        metavar="PATH",
        show_default=False,
        rich_help_panel=NETWORK,
        help="A discriminator to start from: a file, or the folder of a run of stage 2.",
    ),
]
Vgg = Annotated[
    Path | None,
    typer.Option(
        "--vgg",
        metavar="PATH",
        show_default=False,
        rich_help_panel=NETWORK,
        help="vgg19-dcbb9e9d.pth, for the perceptual loss. Default: from the cache, else it is downloaded.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        show_default=False,
        rich_help_panel=RUN,
        help="The run's folder. An unfinished run goes on. Default: runs/NAME-stage1 or -stage2, with the name of "
        "--recipe, else of --init.",
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", rich_help_panel=RUN, help="auto, cpu, cuda or mps.")]
Gpus = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default=False,
        rich_help_panel=RUN,
        help="Train on this many GPUs of this machine; each has a batch of its own.",
    ),
]
Trial = Annotated[
    bool,
    typer.Option(
        "--trial",
        rich_help_panel=RUN,
        help="Eight iterations with saves and validations, into FOLDER-trial: does everything fit?",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", rich_help_panel=RUN, help="Show where errors happened (tracebacks).")]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", rich_help_panel=RUN, help="Only errors on stderr; the result goes to stdout.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="The folder of a run.")]
ResumeChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        show_default=False,
        rich_help_panel=NETWORK,
        help="Changes the recipe from here on, like stage2.learning_rate=5e-5. May be given again.",
    ),
]
ResumeDevice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        show_default=False,
        rich_help_panel=RUN,
        help="auto, cpu, cuda or mps. Default: that of the run.",
    ),
]
ResumeGpus = Annotated[
    int | None,
    typer.Option(
        "--gpus",
        metavar="N",
        show_default=False,
        rich_help_panel=RUN,
        help="Train on this many GPUs of this machine. Default: as many as before.",
    ),
]
