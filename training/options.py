"""Arguments and options of the commands `lookalike train`, `evaluate`, `ablate` and `export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ModelDirectory = Annotated[
    Path, typer.Argument(metavar="MODEL", show_default=False, help="A model directory.")
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A folder of class folders, a CSV (path,label), tar shards ('photos-*.tar'), "
        "or the word digits for scikit-learn's digits.",
    ),
]
Out = Annotated[Path, typer.Option(show_default=False, help="The model directory to write.")]
RecipeName = Literal["modern", "paper"]
Validation = Annotated[
    str | None,
    typer.Option(
        "--val",
        help="Other DATA to validate with. "
        "By default, validate with DATA's val folder, or with a fifth of each class.",
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Number of passes over the images. The default depends on the recipe."),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that the network sees, at least 67 pixels. "
        "The default depends on the recipe."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Another setting of the recipe. This option can be repeated.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder that keeps the decoded images for later runs. "
        "By default, they are stored in --out and deleted at the end."
    ),
]

# Options of `train`.

RecipeOption = Annotated[RecipeName, typer.Option(help="The recipe, with all default settings.")]
Resume = Annotated[bool, typer.Option(help="Continue the unfinished run in --out.")]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="Start from imagenet (torchvision's weights), a model directory or a weights file. "
        "none means random weights. If the classes differ, the last layer is new.",
    ),
]
TowerDevices = Annotated[
    str | None,
    typer.Option(
        metavar="A,B",
        help="Two devices, such as cuda:0,cuda:1. One tower is trained on each, as in the paper.",
    ),
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8/--no-int8",
        help="Also write the network in int8, which is faster on many CPUs, and measure how often "
        "it gives the same answers.",
    ),
]
TensorBoard = Annotated[
    bool, typer.Option(help="Also write TensorBoard events, into --out/tensorboard.")
]
