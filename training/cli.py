"""The commands `lookalike train`, `evaluate`, `ablate`, `import` and `export`."""

import json
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.data.skipped import SKIPPED_FILE, describe_skipped
from training.errors import UserError
from training.network.model import INT8_FILE
from training.options import (
    Cache,
    Data,
    Epochs,
    ImageSize,
    Init,
    Int8,
    ModelDirectory,
    Out,
    RecipeName,
    RecipeOption,
    Resume,
    SetOption,
    TensorBoard,
    TowerDevices,
    Validation,
)
from training.progress import console

if TYPE_CHECKING:
    from training.learning.session import Result

app = typer.Typer(no_args_is_help=True)


class Crops(IntEnum):
    """Number of crops per image. The predictions of the crops are averaged."""

    ONE = 1
    TEN = 10


@app.command()
def train(
    data: Data,
    out: Out,
    recipe: RecipeOption = "modern",
    val: Validation = None,
    epochs: Epochs = None,
    image_size: ImageSize = None,
    set_: SetOption = None,
    resume: Resume = False,
    init: Init = None,
    cache: Cache = None,
    tower_devices: TowerDevices = None,
    tensorboard: TensorBoard = False,
    int8: Int8 = True,
) -> None:
    """Train a network on DATA.

    The model directory holds the weights, an ONNX file, a log and the learning curve.
    """
    from training.learning.request import Request
    from training.learning.session import train as train_model

    request = Request(
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
        writes_int8=int8,
    )
    if resume:
        _print_if_nothing_to_resume(out)
    _print_result(out, train_model(request))


def _print_if_nothing_to_resume(out: Path) -> None:
    from training.learning.checkpoint import CHECKPOINT_FILE
    from training.learning.distributed import is_first_process

    if is_first_process() and not (out / CHECKPOINT_FILE).is_file():
        console.print(f"{out} has no unfinished run: starting with the first epoch")


def _print_result(out: Path, result: "Result") -> None:
    from training.learning.distributed import is_first_process

    if not is_first_process():
        return
    card, metrics = result.card, result.card.metrics
    print(
        f"{out} holds model {card.id[:12]}: top-1 {metrics['top1']:.2%}, "
        f"top-5 {metrics['top5']:.2%} of {metrics['num_images']:,} held-out images"
    )
    if (probe_top1 := card.data["probe_top1"]) is not None:
        print(f"Before training, with a probe as its last layer, it had top-1 {probe_top1:.2%}")
    if result.skipped:
        print(describe_skipped(result.skipped, out / SKIPPED_FILE))


@app.command()
def evaluate(
    models_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... DATA",
            show_default=False,
            help="One or more model directories, followed by the labelled images.",
        ),
    ],
    crops: Annotated[
        Crops,
        typer.Option(help="Number of crops per image. The predictions of the crops are averaged."),
    ] = Crops.ONE,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the decoded images for later evaluations."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure top-1 and top-5 on labelled images.

    If there are several models, the mean of their probabilities is scored.
    """
    from training.learning.evaluation import evaluate_models

    *models, data = models_and_data
    if not models:
        raise UserError(
            f"evaluate needs one or more models and then the data; got only {data}; "
            "pass MODEL... DATA"
        )
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
        Path,
        typer.Option(show_default=False, help="Folder for the runs, the table and Figure 1."),
    ],
    recipe: Annotated[RecipeName, typer.Option(help="The recipe to vary.")] = "paper",
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs of each variation.")] = 3,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Run only the baseline and this variation. This option can be repeated.",
        ),
    ] = None,
    val: Validation = None,
    epochs: Epochs = None,
    image_size: ImageSize = None,
    set_: SetOption = None,
    cache: Cache = None,
) -> None:
    """Train without each of the paper's mechanisms in turn.

    Print how much each mechanism contributes, and the paper's figures for comparison. An
    interrupted ablation continues where it stopped.
    """
    from training.experiments.ablation import ablate as run_ablations
    from training.experiments.ablation_table import format_table
    from training.learning.request import Request

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
        str,
        typer.Argument(
            metavar="WEIGHTS",
            show_default=False,
            help="A .pth, .safetensors or .caffemodel file, or imagenet: torchvision's weights.",
        ),
    ],
    out: Out,
    mean: Annotated[
        Path | None,
        typer.Option(
            help="Caffe's mean image, a .npy or .binaryproto file. "
            "The default is the channel means of ILSVRC-2012."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="A text file with one class name per line. The default is the names of ImageNet."
        ),
    ] = None,
) -> None:
    """Turn torchvision's or Caffe's AlexNet weights into a model directory."""
    from training.network.importing import import_weights

    try:
        names = classes.read_text("utf-8").splitlines() if classes else None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{classes} is not UTF-8 text ({error.reason}); "
            "save it as UTF-8 with one class name per line"
        ) from error
    card = import_weights(weights, out, mean=mean, class_names=names)
    print(f"{out} holds model {card.id[:12]} with {len(card.class_names):,} classes")


@app.command()
def export(
    model: ModelDirectory,
    int8: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Also write model.int8.onnx, the network in int8. Images of DATA calibrate it, "
            "and other images of DATA show how often it gives the same answers.",
        ),
    ] = None,
) -> None:
    """Write model.onnx again from the weights of a model directory."""
    from training.network.export import export_model

    if int8 is not None:
        from training.data.datasets import open_dataset

        open_dataset(int8)  # a wrong name is refused before the export
    console.print(f"Wrote {export_model(model)}")
    if int8 is not None:
        from training.learning.int8 import quantize
        from training.network.quantization.int8_file import describe

        facts = quantize(model, int8)
        console.print(f"Wrote {model / INT8_FILE}")
        print(describe(facts))
