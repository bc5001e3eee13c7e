"""The recipe: every hyper-parameter of a training run, with its default, range and source.

`paper()` follows Krizhevsky et al. 2012, section 5, as closely as one device can. `modern()` uses
the methods that are common today.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from training.errors import UserError


class RecipeError(UserError):
    """A setting does not exist, is out of range, or conflicts with another setting."""


@dataclass(frozen=True)
class Range:
    """The smallest and the largest allowed value of a number."""

    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run. They are stored in model.json.

    The type of a field gives its range. The text under a field says what the setting does and
    names its source. "Section" means a section of Krizhevsky et al. 2012.
    """

    layout: Literal["paper", "torchvision"] = "paper"
    """`paper`: two towers (grouped convolutions) with 96-256-384-384-256 maps (section 3.5).
    `torchvision`: one tower with 64-192-384-256-256 maps (Krizhevsky 2014)."""
    normalization: Literal["response", "batch", "none"] = "response"
    """`response`: the paper's LRN after conv1 and conv2 (section 3.3). `batch`: a batch norm before
    the ReLU of every convolution instead (Ioffe and Szegedy 2015)."""
    activation: Literal["relu", "tanh"] = "relu"
    """The function after every convolution and hidden layer. Section 3.1 compares the two."""
    pooling: Literal["overlapping", "plain"] = "overlapping"
    """Stride 2, with windows of 3 pixels (`overlapping`, section 3.4) or 2 pixels (`plain`)."""
    num_towers: Annotated[int, Range(1, 2)] = 2
    """Number of towers in the `paper` layout. The paper has 2 towers (section 3.2). With 1, the
    layers have the same widths but no groups."""
    kernels: Literal["all", "half"] = "all"
    """`half`: conv1 to conv4 have half the kernels, in one tower. The paper compares its network of
    two towers with this network (section 3.2, footnote 1)."""
    without_convolution: Annotated[int, Range(0, 5)] = 0
    """Number of the convolution that is left out, 2 to 5. With 0, no convolution is left out. In
    the paper, top-1 falls by about 2 points if a middle layer is left out (section 7)."""
    has_sixth_convolution: bool = False
    """Whether pool5 is followed by one more convolution, as in the paper's pre-trained networks
    (section 6.1). The paper does not give the shape of this convolution. Here, it has the shape of
    conv5."""
    dropout: Annotated[float, Range(0, 0.95)] = 0.5
    """Probability that an output of fc6 or fc7 is set to zero in training (section 4.2). In the
    layout `torchvision`, the inputs of these layers are set to zero instead."""
    image_size: Annotated[int, Range(67, 1024)] = 224
    """Side of the square that the network sees, in pixels (section 4.1). At 67 pixels or more,
    pool5 has an input, and no window reaches over an edge."""
    initialization: Literal["paper", "kaiming"] = "paper"
    """`paper`: weights N(0, 0.01), and biases of 1 in conv2, conv4, conv5, fc6 and fc7 (section 5).
    `kaiming`: He et al. 2015, with zero biases."""
    mean: Literal["image", "channel"] = "image"
    """The mean that is subtracted from an image: the mean image of the training set (section 2), or
    the mean of each channel. With `channel`, pixels are also scaled to unit variance, as in
    torchvision."""
    crop: Literal["random", "resized"] = "random"
    """`random`: a random square of the canvas (section 4.1). `resized`: a box of random area and
    aspect ratio, resized (Szegedy et al. 2015)."""
    min_crop_area: Annotated[float, Range(0.01, 1)] = 0.35
    """For crop=resized: the smallest share of the canvas that a crop covers. Szegedy et al. 2015
    use 0.08."""
    flip: bool = True
    """Whether half of the training images are mirrored (section 4.1)."""
    colour_noise: Annotated[float, Range(0, 10)] = 0.0
    """Standard deviation of the factors by which the training set's principal colour components are
    added to an image (section 4.1)."""
    colour_noise_until: Annotated[float, Range(0, 1)] = 1.0
    """Share of `epochs` after which the colour noise stops. The published code uses no colour noise
    in the last third. A `plateau` run that ends early may never reach this point."""
    mixup: Annotated[float, Range(0, 100)] = 0.0
    """Alpha of the beta distribution from which the blend of two images is drawn (Zhang et al.
    2018). 0 turns mixup off."""
    cutmix: Annotated[float, Range(0, 100)] = 0.0
    """Alpha of the beta distribution from which cutmix draws the size of a rectangle. Two images
    exchange this rectangle (Yun et al. 2019). 0 turns cutmix off. If mixup is on as well, every
    batch uses one of the two, at random."""
    batch_size: Annotated[int, Range(1, 65536)] = 128
    """Number of images per step, over all processes (section 5)."""
    class_balance: Annotated[float, Range(0, 1)] = 0.0
    """How far the classes are balanced. An epoch contains images of a class in proportion to its
    size to the power of 1 - class_balance: 0 means every image once, 0.5 is square-root sampling
    (Mahajan et al. 2018), and 1 means equally many images of each class."""
    epochs: Annotated[int, Range(1, 10_000)] = 90
    """Passes over the training images (section 5). A `plateau` run can end earlier."""
    learning_rate: Annotated[float, Range(1e-8, 100)] = 0.01
    """The highest rate of the run (section 5)."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """`plateau`: divide the rate by ten when the validation error stops falling. This happens up to
    three times (section 5). `cosine`: linear warm-up (Goyal et al. 2017), then half a cosine down
    to zero (Loshchilov and Hutter 2017)."""
    patience_epochs: Annotated[int, Range(1, 10_000)] = 6
    """For schedule=plateau: number of epochs without a lower validation error before the rate
    falls. The default is not from the paper. Its authors lowered the rate by hand (section 5)."""
    warmup_epochs: Annotated[float, Range(0, 10_000)] = 0.0
    """For schedule=cosine: number of epochs of linear warm-up (Goyal et al. 2017). Values above
    half of `epochs` count as half of `epochs`."""
    momentum: Annotated[float, Range(0, 0.9999)] = 0.9
    """Share of its velocity that a weight keeps from step to step (section 5)."""
    rate_in_velocity: bool = True
    """If true, the update is the one in section 5: v <- m v - rate (g + decay w), w <- w + v. If
    false, it is the update of torch: v <- m v + (g + decay w), w <- w - rate v. The two updates
    differ when the rate changes, because the velocity of the paper contains the old rate."""
    nesterov: bool = False
    """Whether the update uses Nesterov's momentum, in torch's form (Sutskever et al. 2013)."""
    weight_decay: Annotated[float, Range(0, 1)] = 0.0005
    """Share of a weight that is added to its gradient (section 5)."""
    decay_biases: bool = True
    """Whether biases and the parameters of batch norm decay too. In the paper's update rule, they
    decay (section 5). In He et al. 2019, they do not decay."""
    max_gradient_norm: Annotated[float, Range(0, 1e6)] = 0.0
    """Upper bound of the norm of the gradient of all parameters together. If the norm is larger,
    the gradient is scaled down to this norm (Pascanu et al. 2013). 0 means no bound."""
    last_layer: Literal["random", "probe"] = "random"
    """For --init with other classes: the first weights of the new last layer. `probe`: the weights
    of a logistic regression on the features of the training images (Kumar et al. 2022)."""
    old_layers_rate: Annotated[float, Range(0, 1)] = 1.0
    """For --init: the learning rate of the layers that begin with old weights, as a share of
    `learning_rate` (Howard and Ruder 2018, section 3.2)."""
    frozen_epochs: Annotated[int, Range(0, 10_000)] = 0
    """For --init: number of epochs in which only the new last layer is trained (Howard and Ruder
    2018, section 3.3)."""
    label_smoothing: Annotated[float, Range(0, 0.99)] = 0.0
    """Share of an image's label that is spread evenly over all classes (Szegedy et al. 2016,
    section 7)."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Precision of the forward and the backward pass. `auto` uses bfloat16 if the processor
    multiplies it natively. Weights stay float32 (Micikevicius et al. 2018)."""
    compilation: Literal["off", "on", "auto"] = "auto"
    """Whether torch.compile compiles the network. With `auto`, the network is compiled if it is
    trained on one GPU, and if Triton and a C compiler are installed."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of all random numbers: initial weights, order of the images, crops, flips, colour noise,
    mixup, cutmix and dropout."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                raise RecipeError(f"{name} must be one of {', '.join(get_args(hint))}; got {value}")
            for limits in getattr(hint, "__metadata__", ()):
                if not limits.least <= value <= limits.greatest:
                    raise RecipeError(
                        f"{name} must lie between {limits.least} and {limits.greatest}; got {value}"
                    )
        if self.without_convolution == 1:
            raise RecipeError(
                "without_convolution must be 2 to 5, or 0 for none; "
                "got 1, but the other layers need conv1"
            )
        if self.kernels == "half" and self.layout == "paper" and self.num_towers == 2:
            raise RecipeError("kernels=half needs num_towers=1; got num_towers=2")
        if self.has_sixth_convolution and self.normalization == "batch" and self.image_size < 96:
            raise RecipeError(
                "a sixth convolution with batch norm needs an image_size of 96 or more; "
                f"got {self.image_size}"
            )
        if self.nesterov and not self.momentum:
            raise RecipeError("nesterov needs a momentum above 0; got 0")
        if self.nesterov and self.rate_in_velocity:
            raise RecipeError(
                "nesterov=true needs rate_in_velocity=false, because the paper does not print "
                "Nesterov's update; got rate_in_velocity=true"
            )

    def with_settings(self, settings: Sequence[str]) -> "Recipe":
        """A copy of this recipe, changed by settings of the form `name=value`.

        Raises RecipeError for a setting that is unknown, out of range, or without effect.
        """
        hints = get_type_hints(type(self))
        changes: dict[str, Any] = {}
        for setting in settings:
            name, separator, text = setting.partition("=")
            if not separator or name not in hints:
                raise RecipeError(
                    f"{setting!r} is not a setting; write name=value with one of these names: "
                    f"{', '.join(hints)}"
                )
            changes[name] = _parse(name, text, hints[name])
        recipe = dataclasses.replace(self, **changes)
        for name, (other, value, remedy) in WITHOUT_EFFECT.items():
            if name in changes and getattr(recipe, other) == value:
                raise RecipeError(
                    f"{name} has no effect with {other}={value}; set {remedy} too, "
                    f"or leave {name} out"
                )
        return recipe

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


WITHOUT_EFFECT = {
    "num_towers": ("layout", "torchvision", "layout=paper"),
    "min_crop_area": ("crop", "random", "crop=resized"),
    "colour_noise_until": ("colour_noise", 0, "a colour_noise above 0"),
    "patience_epochs": ("schedule", "cosine", "schedule=plateau"),
    "warmup_epochs": ("schedule", "plateau", "schedule=cosine"),
}
"""Settings that have no effect if another setting has a certain value.

Each name is mapped to the other setting, the value of the other setting, and the remedy.
"""


def paper() -> Recipe:
    """The recipe of sections 3 to 5.

    It trains for 90 epochs with momentum SGD. The learning rate starts at 0.01 and falls on
    plateaus. Images are cropped, flipped and given colour noise.
    """
    return Recipe(colour_noise=0.1)


def modern() -> Recipe:
    """The paper's layers, trained with the methods that are common today.

    It uses batch norm, random resized crops, PCA colour noise, mixup, cutmix, label smoothing,
    warm-up and a cosine schedule. It uses bfloat16 if the processor supports bfloat16 natively. The
    norm of the gradient is bounded, because training on a few dozen images diverged without the
    bound.
    """
    return Recipe(
        normalization="batch",
        initialization="kaiming",
        mean="channel",
        crop="resized",
        min_crop_area=0.25,
        colour_noise=0.1,
        mixup=0.2,
        cutmix=1.0,
        epochs=80,
        learning_rate=0.05,
        schedule="cosine",
        warmup_epochs=2,
        rate_in_velocity=False,
        nesterov=True,
        decay_biases=False,
        max_gradient_norm=5.0,
        label_smoothing=0.1,
        precision="auto",
    )


RECIPES = {"paper": paper, "modern": modern}


def contrast(these: Mapping[str, Any], others: Mapping[str, Any], names: Iterable[str]) -> str:
    """The values of the settings `names` in two recipes, as text: `epochs=3, not epochs=5`."""
    names = list(names)
    first, second = (
        ", ".join(f"{name}={values.get(name)}" for name in names) for values in (these, others)
    )
    return f"{first}, not {second}"


def _parse(name: str, text: str, hint: Any) -> Any:
    """Convert the text of a setting to the type of its field; raises RecipeError."""
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise RecipeError(f"{name} must be true or false; got {text}")
        return text.lower() == "true"
    if hint in (int, float):
        kind = "a whole number" if hint is int else "a number"
        try:
            return hint(text)
        except ValueError:
            raise RecipeError(f"{name} must be {kind}; got {text}") from None
    return text
