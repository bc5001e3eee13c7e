"""`lookalike train`, `evaluate`, `import` and `export`."""

import json
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.cache import SKIPPED_FILE, describe_skipped
from training.progress import console

app = typer.Typer(no_args_is_help=True)

ModelDirectory = Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="A model directory.")]


class Crops(IntEnum):
    """How many crops of an image are averaged: the centre, or the paper's ten."""

    ONE = 1
    TEN = 10


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", show_default=False, help="A folder of class folders, a CSV (path,label), or digits.")
    ],
    out: Annotated[Path, typer.Option(show_default=False, help="The model directory.")],
    recipe: Annotated[Literal["modern", "paper"], typer.Option(help="Where the settings come from.")] = "modern",
    val: Annotated[
        str | None, typer.Option(help="Other DATA to validate with; else a fifth of each class, or DATA's own val folder.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images; else the recipe's.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square that the network sees, 67 pixels or more; else the recipe's.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the recipe; may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the unfinished run in --out.")] = False,
) -> None:
    """Train a network on DATA; the model directory holds its weights, its ONNX file, its log and its learning curve."""
    from training.session import Request
    from training.session import train as train_model

    result = train_model(
        Request(
            data=data, out=out, recipe=recipe, validation=val, epochs=epochs, image_size=image_size, settings=set_ or (), resume=resume,
        )
    )  # fmt: skip
    metrics = result.card.metrics
    print(
        f"{out} holds model {result.card.id[:12]}: top-1 {metrics['top1']:.2%}, "
        f"top-5 {metrics['top5']:.2%} of {metrics['num_images']:,} held-out images"
    )
    if result.skipped:
        print(describe_skipped(result.skipped, out / SKIPPED_FILE))


@app.command()
def evaluate(
    model: ModelDirectory,
    data: Annotated[str, typer.Argument(metavar="DATA", show_default=False, help="Labelled images, all of which are asked.")],
    crops: Annotated[Crops, typer.Option(help="Average the predictions over this many crops.")] = Crops.ONE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure top-1 and top-5 of a model on labelled images."""
    from training.session import evaluate_model

    scores = evaluate_model(model, data, num_crops=int(crops))
    if as_json:
        print(json.dumps(scores.as_dict() | {"crops": int(crops)}))
    else:
        print(
            f"top-1 {scores.top1:.2%}, top-5 {scores.top5:.2%}, loss {scores.loss:.4f} "
            f"on {scores.num_images:,} images, {int(crops)} crop(s) each"
        )


@app.command("import")
def import_(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", show_default=False, help="A .pth, .safetensors or .caffemodel file.")],
    out: Annotated[Path, typer.Option(show_default=False, help="The model directory.")],
    mean: Annotated[Path | None, typer.Option(help="Caffe's mean image, .npy or .binaryproto; else its channel means.")] = None,
    classes: Annotated[Path | None, typer.Option(help="The names of the classes, one a line; else ImageNet's.")] = None,
) -> None:
    """Turn torchvision's or Caffe's AlexNet weights into a model directory."""
    from training.importing import import_weights

    names = classes.read_text("utf-8").splitlines() if classes else None
    card = import_weights(weights, out, mean=mean, class_names=names)
    print(f"{out} holds model {card.id[:12]} with {len(card.class_names):,} classes")


@app.command()
def export(model: ModelDirectory) -> None:
    """Write a model directory's model.onnx again, from its weights."""
    from training.export import export_model

    console.print(f"Wrote {export_model(model)}")
