"""Arguments and options that several commands of the index share."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.search.kinds import KINDS
from training.devices import Device

IndexDirectory = Annotated[
    Path, typer.Argument(metavar="INDEX", show_default=False, help="An index directory.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[
    Device, typer.Option(help="Device to compute on. auto uses a GPU if there is one.")
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
