"""Recipe: every hyper-parameter of a training run, its default, its range and where it comes from.

`paper()` follows Krizhevsky et al. 2012, section 5, as closely as one device does; `modern()` is what the field moved to.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from training.errors import UserError


class RecipeError(UserError):
    """A setting that no recipe has, or a value outside its range."""


@dataclass(frozen=True)
class Range:
    """The least and the greatest value that a number may have."""

    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete training run; saved in model.json as resolved.

    Beside every field stands what it may be, under it what it does and where it comes from; "section" is one of the paper's.
    """

    layout: Literal["paper", "torchvision"] = "paper"
    """`paper`: two towers (grouped convolutions), 96-256-384-384-256 maps (section 3.5); `torchvision`: one tower,
    64-192-384-256-256 (Krizhevsky 2014)."""
    normalization: Literal["response", "batch", "none"] = "response"
    """`response` is the paper's LRN after conv1 and conv2 (section 3.3); `batch` a batch norm before every convolution's ReLU
    instead (Ioffe and Szegedy 2015)."""
    activation: Literal["relu", "tanh"] = "relu"
    """After every convolution and hidden layer; the paper compares the two in section 3.1."""
    pooling: Literal["overlapping", "plain"] = "overlapping"
    """Windows of 3 with stride 2 (section 3.4), or of 2."""
    num_towers: Annotated[int, Range(1, 2)] = 2
    """Of the `paper` layout: 2 (section 3.2), or 1 for the same widths without groups."""
    kernels: Literal["all", "half"] = "all"
    """`half` is what the paper compares two towers with: half as many in conv1 to conv4, in one tower (section 3.2, footnote 1)."""
    without_convolution: Annotated[int, Range(0, 5)] = 0
    """Leave out a middle convolution, 2 to 5 (section 7: each costs about 2 points of top-1); 0 leaves out none."""
    has_sixth_convolution: bool = False
    """One more convolution on pool5, as the paper's pre-trained nets have (section 6.1; its shape is not printed: ours is conv5's)."""
    dropout: Annotated[float, Range(0, 0.95)] = 0.5
    """Probability that an output of fc6 and fc7 is zeroed in training (section 4.2); `torchvision` zeroes what enters them instead."""
    image_size: Annotated[int, Range(67, 1024)] = 224
    """Side of the square that the network sees, in pixels (section 4.1); 67 is the least where pool5 has something to pool and no
    window overhangs."""
    initialization: Literal["paper", "kaiming"] = "paper"
    """`paper`: weights N(0, 0.01), bias 1 in conv2, conv4, conv5, fc6 and fc7 (section 5); `kaiming`: He et al. 2015, zero biases."""
    mean: Literal["image", "channel"] = "image"
    """What is subtracted: the training set's mean image (section 2), or its channel means, the result scaled to unit variance (as
    torchvision does)."""
    crop: Literal["random", "resized"] = "random"
    """`random`: a random square of the canvas (section 4.1); `resized`: a random area and aspect ratio, resized (Szegedy et al. 2015)."""
    min_crop_area: Annotated[float, Range(0.01, 1)] = 0.35
    """`resized`: the least share of the canvas that a crop covers; Szegedy et al. 2015 take 0.08."""
    flip: bool = True
    """Mirror every other training image (section 4.1)."""
    colour_noise: Annotated[float, Range(0, 10)] = 0.0
    """Deviation of the multiples of the training set's principal colour components that are added to an image (section 4.1)."""
    colour_noise_until: Annotated[float, Range(0, 1)] = 1.0
    """Share of `epochs` after which the colour noise stops; the published code trained its last third without. A `plateau` run that
    ends before its `epochs` may never come so far."""
    mixup: Annotated[float, Range(0, 100)] = 0.0
    """Alpha of the beta distribution by which two images are blended (Zhang et al. 2018); 0 blends none."""
    cutmix: Annotated[float, Range(0, 100)] = 0.0
    """The same for a rectangle of one image laid on another (Yun et al. 2019); with both, every other batch takes one of them."""
    batch_size: Annotated[int, Range(1, 65536)] = 128
    """Images a step, over all processes together (section 5)."""
    epochs: Annotated[int, Range(1, 10_000)] = 90
    """Passes over the training images (section 5); `plateau` may end before."""
    learning_rate: Annotated[float, Range(1e-8, 100)] = 0.01
    """The highest rate of the run (section 5)."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """`plateau`: a tenth each time the validation error stops falling, three times (section 5); `cosine`: linear warm-up (Goyal et al.
    2017), then half a cosine to zero (Loshchilov and Hutter 2017)."""
    patience_epochs: Annotated[int, Range(1, 10_000)] = 6
    """`plateau`: epochs without a lower validation error before the rate falls; ours, since the paper lowered it by hand (section 5)."""
    warmup_epochs: Annotated[float, Range(0, 10_000)] = 0.0
    """`cosine`: epochs of linear warm-up (Goyal et al. 2017), at most half of `epochs`."""
    momentum: Annotated[float, Range(0, 0.9999)] = 0.9
    """Share of its velocity that a weight keeps from step to step (section 5)."""
    rate_in_velocity: bool = True
    """The update as printed (section 5): v <- m v - rate (g + decay w), w <- w + v. False is torch's, v <- m v + (g + decay w) and
    w <- w - rate v. The two differ while the rate changes: the printed velocity remembers the old rate."""
    nesterov: bool = False
    """Nesterov's momentum, in torch's form (Sutskever et al. 2013)."""
    weight_decay: Annotated[float, Range(0, 1)] = 0.0005
    """How much of a weight is added to its gradient (section 5)."""
    decay_biases: bool = True
    """Whether weight decay also holds biases and batch norm's parameters back, as the paper's update rule does (section 5) and He et al.
    2019 do not."""
    max_gradient_norm: Annotated[float, Range(0, 1e6)] = 0.0
    """A longer gradient, all parameters together, is scaled down to this (Pascanu et al. 2013); 0 leaves every one as it is."""
    label_smoothing: Annotated[float, Range(0, 0.99)] = 0.0
    """Share of an image's label that is spread evenly over all classes (Szegedy et al. 2016, section 7)."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of the forward and backward pass; `auto` takes bfloat16 where the processor multiplies it natively. Weights stay float32
    (Micikevicius et al. 2018)."""
    compilation: Literal["off", "on", "auto"] = "auto"
    """Whether torch.compile fuses the network; `auto` does on a GPU."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Of every random number: the first weights, the order of the images, crops, colours, mixing and dropout."""

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
                "without_convolution must be 2 to 5, or 0 for none; got 1, without which no other fits"
            )
        if self.kernels == "half" and self.layout == "paper" and self.num_towers == 2:
            raise RecipeError(
                "kernels=half makes one tower of the two; set num_towers=1 with it, got 2"
            )
        if self.has_sixth_convolution and self.normalization == "batch" and self.image_size < 96:
            raise RecipeError(
                f"a sixth convolution with batch norm needs an image_size of 96 or more; got {self.image_size}"
            )
        if self.nesterov and not self.momentum:
            raise RecipeError("nesterov needs a momentum above 0; got 0")
        if self.nesterov and self.rate_in_velocity:
            raise RecipeError(
                "nesterov has no printed form; set rate_in_velocity=false with it, got true"
            )

    def with_settings(self, settings: Sequence[str]) -> "Recipe":
        """This recipe with `name=value` settings; raises RecipeError naming the setting and what it takes, or why it does nothing."""
        hints = get_type_hints(type(self))
        changes: dict[str, Any] = {}
        for setting in settings:
            name, separator, text = setting.partition("=")
            if not separator or name not in hints:
                raise RecipeError(
                    f"{setting!r} is not a setting; write name=value with one of: {', '.join(hints)}"
                )
            changes[name] = _parse(name, text, hints[name])
        recipe = dataclasses.replace(self, **changes)
        for name, (other, value, remedy) in WITHOUT_EFFECT.items():
            if name in changes and getattr(recipe, other) == value:
                raise RecipeError(
                    f"{name} does nothing with {other}={value}; set {remedy} with it, or leave it out"
                )
        return recipe

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


WITHOUT_EFFECT = {
    "num_towers": ("layout", "torchvision", "layout=paper"),
    "min_crop_area": ("crop", "random", "crop=resized"),
    "colour_noise_until": ("colour_noise", 0, "a colour_noise above 0"),
    "patience_epochs": ("schedule", "cosine", "schedule=plateau"),
    "warmup_epochs": ("schedule", "plateau", "schedule=cosine"),
}
"""Settings that do nothing while another one has a value, and what to set for them to do something."""


def paper() -> Recipe:
    """Sections 3 to 5: momentum SGD at 0.01 on crops, flips and colour noise, a rate that falls on plateaus, 90 epochs."""
    return Recipe(colour_noise=0.1)


def modern() -> Recipe:
    """Batch norm, random resized crops, PCA colour, mixup and cutmix, label smoothing, warm-up and cosine, bfloat16 where it is native.

    Without the bound on the gradient, a few dozen images diverge: they have no more than a step or two of warm-up.
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
    """How two recipes differ in `names`, for an error: `epochs=3, not epochs=5`."""
    names = list(names)
    return ", not ".join(
        ", ".join(f"{name}={values.get(name)}" for name in names) for values in (these, others)
    )


def _parse(name: str, text: str, hint: Any) -> Any:
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise RecipeError(f"{name} must be true or false; got {text}")
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise RecipeError(
                f"{name} must be {'a whole number' if hint is int else 'a number'}; got {text}"
            ) from None
    return text
