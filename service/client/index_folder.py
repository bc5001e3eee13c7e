"""Index a folder of images over HTTP: `python -m service.client.index_folder URL FOLDER`.

This is also an example of a program that uses the client from several threads.
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from service.client import Client, ServiceError
from training.data.datasets import open_dataset
from training.data.examples import Example
from training.data.images import ImageError, read_bytes
from training.errors import UserError
from training.naming import one_line
from training.parallel import map_ahead
from training.progress import Bar, console

KEY_VARIABLE = "LOOKALIKE_WRITE_KEY"
OUTCOMES = ("added", "replaced", "unchanged", "unusable", "failed")
FOR_ALL_IMAGES = (401, 403, 404, 405, 503)
"""Statuses that every other image would get too. They end the program."""

Known = Mapping[str, tuple[str | None, str]]
"""The label and the SHA-256 of each item, by its path."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def index_folder(
    url: Annotated[str, typer.Argument(metavar="URL", help="The address of the service.")],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder of class folders, a CSV (path,label) or tar shards."
        ),
    ],
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that contains the write key. "
            f"By default, the key is in the variable {KEY_VARIABLE}."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="Number of images that are sent at the same time.")
    ] = 4,
) -> None:
    """Add the images of FOLDER to the index that the service at URL serves.

    The label of an image is its class folder, and its path is relative to FOLDER. After an
    interruption, run the same command again: only missing and changed images are sent.
    """
    examples = open_dataset(folder.absolute()).part("all")
    counts: Counter[str] = Counter()
    with Client(url, key=read_key(key_file), max_retries=100, max_wait_s=300.0) as client:
        try:
            _add_all(client, examples, threads, counts)
        finally:
            # A newer service may have more outcomes.
            outcomes = dict.fromkeys((*OUTCOMES, *counts))
            print(", ".join(f"{counts[outcome]:,} {outcome}" for outcome in outcomes))
    if counts["failed"]:
        raise typer.Exit(1)


def read_key(key_file: Path | None) -> str | None:
    """The key in the file, or without a file, in the environment; raises UserError."""
    if key_file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        return key_file.read_text("utf-8").strip()
    except OSError as error:
        raise UserError(f"{key_file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{key_file} is not text in UTF-8; pass a file with the key") from error


def _add_all(
    client: Client, examples: tuple[Example, ...], num_threads: int, counts: Counter[str]
) -> None:
    """Add all examples, count the outcomes, and print a line for each that was not added.

    Raises ServiceError or NoAnswerError if no other image could be added either.
    """
    max_items = client.info().limits.max_items
    known = {item.path: (item.label, item.sha256) for item in client.all_items(page_size=max_items)}
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="send")
    try:
        with Bar("Sending", len(examples)) as bar:
            outcomes = map_ahead(
                pool, lambda one: _add(client, one, known), examples, ahead=2 * num_threads
            )
            for example, (outcome, reason) in zip(examples, outcomes, strict=True):
                counts[outcome] += 1
                if reason:
                    console.print(f"{outcome}: {one_line(example.path)}: {reason}")
                bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)


def _add(client: Client, example: Example, known: Known) -> tuple[str, str]:
    """Add one example. Returns one of OUTCOMES, and the reason if the example was not added."""
    try:
        source = example.source
        content = source if isinstance(source, bytes) else read_bytes(source)
        if known.get(example.path) == (example.label, hashlib.sha256(content).hexdigest()):
            return "unchanged", ""
        name = PurePosixPath(example.path).name
        return client.add((name, content), label=example.label, path=example.path).status, ""
    except ImageError as error:
        return "unusable", str(error)
    except ServiceError as error:
        if error.status in FOR_ALL_IMAGES:
            raise
        # The request has one image. So if it is too large, the image is too large.
        is_about_image = error.filename is not None or error.type == "too-many-bytes"
        reason = str(error).removeprefix(f"{error.filename}: ")
        return "unusable" if is_about_image else "failed", reason


def main() -> None:
    """Run the command. An error that the user can correct is printed as one line."""
    try:
        app(prog_name="python -m service.client.index_folder")
    except UserError as error:
        print(f"index_folder: {one_line(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
