"""The network that the demo starts from: ImageNet weights, another model, or none."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from training.errors import UserError
from training.files import write_atomically
from training.network.model import CARD_FILE, read_card
from training.progress import console

START_FILE = "demo.json"
FROM_SCRATCH = "none"


@dataclass(frozen=True)
class Start:
    """The data of a working directory, and the network that it started from."""

    data: str
    """The images: an absolute path, or the name of a data set."""
    init: str
    """`imagenet`, `none`, a model directory, or a weights file."""

    @property
    def is_from_scratch(self) -> bool:
        return self.init == FROM_SCRATCH


def choose_start(data: str, workdir: Path, init: str | None) -> Start:
    """The start of a working directory. The first call chooses it, and later calls repeat it.

    Without `init`, the ImageNet weights are chosen if they are at hand or can be downloaded. Digits
    are trained from scratch, because they are not photographs. Raises UserError if the directory
    was made from other data or with another `init`.
    """
    name = data if data == "digits" else str(Path(data).absolute())
    earlier = _read_start(workdir)
    if earlier is not None:
        _check_same(workdir, earlier, name, init)
        return earlier
    start = Start(name, init or _best_init(name))
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir / START_FILE, json.dumps(asdict(start)).encode())
    return start


def _best_init(data: str) -> str:
    if data == "digits":
        return FROM_SCRATCH
    from training.network.pretrained import IMAGENET, are_imagenet_weights_available

    if are_imagenet_weights_available():
        return IMAGENET
    console.print(
        "Training from scratch, because the ImageNet weights cannot be downloaded here. With them, "
        "answers on few photographs are better and come sooner. To use them, set "
        "LOOKALIKE_WEIGHTS_URL to a mirror or to the file, and pass another --workdir"
    )
    return FROM_SCRATCH


def _read_start(workdir: Path) -> Start | None:
    """The start of an earlier run, also of a version that did not write START_FILE."""
    file = workdir / START_FILE
    if file.exists():
        try:
            return Start(**json.loads(file.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{file} is damaged; remove it, or pass another --workdir") from error
    if (workdir / "model" / CARD_FILE).exists():
        return Start(str(read_card(workdir / "model").data["name"]), FROM_SCRATCH)
    return None


def _check_same(workdir: Path, earlier: Start, data: str, init: str | None) -> None:
    """Raise UserError if finished steps would wrongly count as done."""
    if earlier.data != data and Path(earlier.data).resolve() != Path(data).resolve():
        raise UserError(
            f"{workdir} was made from {earlier.data}, not {data}; "
            "pass another --workdir, or remove that directory first"
        )
    if init is not None and init != earlier.init:
        raise UserError(
            f"{workdir} was made with --init {earlier.init}, not {init}; "
            "pass another --workdir, or remove that directory first"
        )
