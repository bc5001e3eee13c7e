"""Arguments and options that several commands of the index share."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.search.kinds import KINDS
from training.devices import Device, RequestedPrecision

IndexDirectory = Annotated[
    Path, typer.Argument(metavar="INDEX", show_default=False, help="An index directory.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[
    Device, typer.Option(help="Device to compute on. auto uses a GPU if there is one.")
]
PrecisionOption = Annotated[
    RequestedPrecision,
    typer.Option(
        help="Precision of the network. auto is int8 on the CPU if the model has a network in int8 "
        "whose answers agree with those in float32, and the processor has instructions for int8."
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(KINDS),
        show_default=False,
        help="The kind of search. With auto, a small index is scanned, and a larger index uses the "
        "most precise kind that fits into the memory.",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        show_default=False,
        help="Memory that searches may use, for example 4GB. The default is half of the machine's "
        "memory.",
    ),
]
