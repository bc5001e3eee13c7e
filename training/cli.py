"""`lookalike train`, `evaluate`, `ablate`, `import` and `export`."""

import json
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.errors import UserError
from training.progress import console

app = typer.Typer(no_args_is_help=True)

ModelDirectory = Annotated[
    Path, typer.Argument(metavar="MODEL", show_default=False, help="A model directory.")
]

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A folder of class folders, a CSV (path,label), tar shards ('photos-*.tar'), or digits.",
    ),
]
Validation = Annotated[
    str | None,
    typer.Option(
        "--val",
        help="Other DATA to validate with; else a fifth of each class, or DATA's own val folder.",
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images; else the recipe's.")]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that the network sees, 67 pixels or more; else the recipe's."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any other setting of the recipe; may be repeated."
    ),
]


class Crops(IntEnum):
    """How many crops of an image are averaged: the centre, or the paper's ten."""

    ONE = 1
    TEN = 10


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(show_default=False, help="The model directory.")],
    recipe: Annotated[
        Literal["modern", "paper"], typer.Option(help="Where the settings come from.")
    ] = "modern",
    val: Validation = None,
    epochs: Epochs = None,
    image_size: ImageSize = None,
    set_: Settings = None,
    resume: Annotated[bool, typer.Option(help="Go on with the unfinished run in --out.")] = False,
    init: Annotated[
        Path | None,
        typer.Option(help="A model directory to fine-tune; other classes get a new last layer."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep the decoded images here, for other runs; else in --out until it is done."
        ),
    ] = None,
    tower_devices: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Two devices, to train one tower on each, as the paper did: cuda:0,cuda:1.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option(help="Write TensorBoard's events too, into --out/tensorboard.")
    ] = False,
) -> None:
    """Train a network on DATA; the model directory holds its weights, its ONNX file, its log and its learning curve."""
    from training.learning.checkpoint import CHECKPOINT_FILE
    from training.learning.distributed import is_first_process
    from training.learning.session import Request
    from training.learning.session import train as train_model

    if resume and is_first_process() and not (out / CHECKPOINT_FILE).is_file():
        console.print(f"{out} has no unfinished run: starting with the first epoch")
    result = train_model(
        Request(
            data=data,
            out=out,
            recipe=recipe,
            validation=val,
            epochs=epochs,
            image_size=image_size,
            settings=set_ or (),
            resume=resume,
            init=init,
            cache=cache,
            tower_devices=tower_devices.split(",") if tower_devices else (),
            has_tensorboard=tensorboard,
        )
    )
    if not is_first_process():
        return
    metrics = result.card.metrics
    print(
        f"{out} holds model {result.card.id[:12]}: top-1 {metrics['top1']:.2%}, "
        f"top-5 {metrics['top5']:.2%} of {metrics['num_images']:,} held-out images"
    )
    if result.skipped:
        print(describe_skipped(result.skipped, out / SKIPPED_FILE))


@app.command()
def evaluate(
    models_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... DATA",
            show_default=False,
            help="Model directories, and labelled images to ask.",
        ),
    ],
    crops: Annotated[
        Crops, typer.Option(help="Average the predictions over this many crops.")
    ] = Crops.ONE,
    cache: Annotated[
        Path | None, typer.Option(help="Keep the decoded images here, for other times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure top-1 and top-5 on labelled images; several models answer with the mean of their probabilities."""
    from training.learning.session import evaluate_models

    *models, data = models_and_data
    if not models:
        raise UserError(f"evaluate takes one or more models and then the data; got {data} alone")
    scores = evaluate_models(
        [Path(model) for model in models], data, num_crops=int(crops), cache=cache
    )
    if as_json:
        print(json.dumps(scores.as_dict() | {"models": len(models), "crops": int(crops)}))
    else:
        print(
            f"top-1 {scores.top1:.2%}, top-5 {scores.top5:.2%}, loss {scores.loss:.4f} "
            f"on {scores.num_images:,} images, {len(models)} model(s), {int(crops)} crop(s) each"
        )


@app.command()
def ablate(
    data: Data,
    out: Annotated[
        Path, typer.Option(show_default=False, help="Where the runs, the table and Figure 1 go.")
    ],
    recipe: Annotated[Literal["modern", "paper"], typer.Option(help="What is varied.")] = "paper",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each variation.")] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Run this variation and the baseline only; may be repeated."
        ),
    ] = None,
    val: Validation = None,
    epochs: Epochs = None,
    image_size: ImageSize = None,
    set_: Settings = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep the decoded images here; else in --out until all is done."),
    ] = None,
) -> None:
    """Leave out the paper's mechanisms one at a time, and print what each costs beside the paper's figures; goes on where it was."""
    from training.experiments.ablation import ablate as run_ablations
    from training.experiments.ablation import format_table
    from training.learning.session import Request

    request = Request(
        data=data,
        out=out,
        recipe=recipe,
        validation=val,
        epochs=epochs,
        image_size=image_size,
        settings=set_ or (),
        cache=cache,
    )
    print(format_table(run_ablations(request, seeds=seeds, only=only or ())), end="")


@app.command("import")
def import_(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS", show_default=False, help="A .pth, .safetensors or .caffemodel file."
        ),
    ],
    out: Annotated[Path, typer.Option(show_default=False, help="The model directory.")],
    mean: Annotated[
        Path | None,
        typer.Option(help="Caffe's mean image, .npy or .binaryproto; else its channel means."),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="The names of the classes, one a line; else ImageNet's.")
    ] = None,
) -> None:
    """Turn torchvision's or Caffe's AlexNet weights into a model directory."""
    from training.network.importing import import_weights

    try:
        names = classes.read_text("utf-8").splitlines() if classes else None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{classes} is no text in UTF-8 ({error.reason}); save it as UTF-8 with a name a line"
        ) from error
    card = import_weights(weights, out, mean=mean, class_names=names)
    print(f"{out} holds model {card.id[:12]} with {len(card.class_names):,} classes")


@app.command()
def export(model: ModelDirectory) -> None:
    """Write a model directory's model.onnx again, from its weights."""
    from training.network.export import export_model

    console.print(f"Wrote {export_model(model)}")
