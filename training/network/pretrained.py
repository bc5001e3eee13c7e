"""The ImageNet weights of torchvision's AlexNet, downloaded once into a cache directory.

LOOKALIKE_WEIGHTS_URL names another source: a mirror, or a file on this machine. LOOKALIKE_CACHE
names another cache directory.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from training.errors import UserError
from training.files import file_sha256
from training.network.download import (
    DownloadError,
    RefusedError,
    StorageError,
    download,
    is_intact,
    is_reachable,
    shown,
)
from training.network.model import FROM_SCRATCH, IMAGENET
from training.progress import console

TORCH_SUFFIXES = (".pth", ".pt", ".safetensors")
"""The ends of the names of files with weights in torchvision's layout."""
CHECKSUM_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
"""torchvision's file names contain the start of the SHA-256."""
OTHER_SOURCE = "set LOOKALIKE_WEIGHTS_URL to a mirror or to a file"
"""The remedy if torchvision's server fails."""
CORRECT_SOURCE = "correct LOOKALIKE_WEIGHTS_URL, or unset it to use torchvision's server"
"""The remedy if the source that LOOKALIKE_WEIGHTS_URL names fails."""
OTHER_CACHE = "set LOOKALIKE_CACHE to another folder that you can write to"


class WeightsError(UserError):
    """The ImageNet weights are not available."""


@dataclass(frozen=True)
class _Source:
    """The origin of the weights, and the file that has them in the end."""

    url: str | None
    """None if `file` is the source itself."""
    file: Path
    sha256_start: str
    remedy: str


def imagenet_weights() -> Path:
    """The file with the weights, downloaded if it is not at hand; raises WeightsError.

    The messages fit every command. Thus they do not name the options of a command. The commands
    with the option --init use `hint_at_scratch`.
    """
    source = _find_source()
    if source.url is None:
        if problem := _problem_of(source):
            raise WeightsError(f"LOOKALIKE_WEIGHTS_URL names {source.file}, {problem}")
        return source.file
    try:
        is_at_hand = is_intact(source.file, source.sha256_start)
        is_damaged = not is_at_hand and source.file.exists()
    except OSError as error:
        raise WeightsError(
            f"{source.file} cannot be read ({error.strerror}); make it readable, or {OTHER_CACHE}"
        ) from error
    if not is_at_hand:
        manner = " again, because it is damaged" if is_damaged else ", once"
        console.print(f"Downloading {source.file}{manner}, from {urlsplit(source.url).hostname}")
        _download(source.url, source)
    return source.file


def cached_imagenet_weights() -> Path | None:
    """The file with the weights if it is at hand and intact. Nothing is downloaded.

    Raises WeightsError if LOOKALIKE_WEIGHTS_URL is malformed.
    """
    source = _find_source()
    if source.url is None:
        return None if _problem_of(source) else source.file
    try:
        return source.file if is_intact(source.file, source.sha256_start) else None
    except OSError:
        return None


def are_imagenet_weights_available() -> bool:
    """Whether the weights are at hand, or a server offers them. Nothing is downloaded."""
    source = _find_source()
    if cached_imagenet_weights() is not None:
        return True
    return source.url is not None and is_reachable(source.url)


@contextmanager
def hint_at_scratch(init: str | Path | None) -> Iterator[None]:
    """If `init` is `imagenet`, the errors in the `with` block end with the way to do without it.

    This is for commands with the option --init. Their errors become WeightsError.
    """
    try:
        yield
    except UserError as error:
        if init != IMAGENET:
            raise
        raise WeightsError(
            f"{error}; to train from scratch on labelled images, pass --init {FROM_SCRATCH}"
        ) from error


def weights_file(weights: str | Path) -> Path:
    """The file that a user names: `imagenet`, or a path; raises WeightsError."""
    return imagenet_weights() if weights == IMAGENET else Path(weights)


def cache_directory() -> Path:
    """LOOKALIKE_CACHE, or else the folder `lookalike` in the user's cache; raises WeightsError."""
    if own := os.environ.get("LOOKALIKE_CACHE"):
        return Path(os.path.expanduser(own))
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    folder = shared if os.path.isabs(shared) else os.path.expanduser("~/.cache")
    if not os.path.isabs(folder):
        raise WeightsError(
            "this user has no home directory for the downloaded weights; "
            "set LOOKALIKE_CACHE to a folder"
        )
    return Path(folder, "lookalike")


def _find_source() -> _Source:
    """The source that LOOKALIKE_WEIGHTS_URL names, or torchvision's; raises WeightsError."""
    from torchvision.models import AlexNet_Weights

    official: str = AlexNet_Weights.IMAGENET1K_V1.url
    text = os.environ.get("LOOKALIKE_WEIGHTS_URL") or official
    try:
        parts = urlsplit(text)
        host, path = parts.hostname, unquote(parts.path)
    except ValueError as error:
        raise _malformed(text) from error
    official_name = Path(official).name
    remedy = OTHER_SOURCE if text == official else CORRECT_SOURCE
    if "://" not in text:
        file = Path(os.path.expanduser(text))
        return _Source(None, file, _checksum_in(file.name, official_name), remedy)
    if parts.scheme == "file" and host in (None, "localhost") and path:
        return _Source(None, Path(path), _checksum_in(Path(path).name, official_name), remedy)
    if parts.scheme not in ("http", "https") or not host:
        raise _malformed(text)
    # A file without a checksum in its name has to be the official one, so it gets that name.
    name = Path(path).name if CHECKSUM_IN_NAME.search(Path(path).name) else official_name
    if not name.endswith(TORCH_SUFFIXES):
        raise WeightsError(
            f"the file that LOOKALIKE_WEIGHTS_URL names must end in {', '.join(TORCH_SUFFIXES)}, "
            f"but got {name}; {remedy}"
        )
    return _Source(text, cache_directory() / name, _checksum_in(name, official_name), remedy)


def _checksum_in(*names: str) -> str:
    """The checksum in the first of the names that has one."""
    return next(match[1] for name in names if (match := CHECKSUM_IN_NAME.search(name)))


def _malformed(text: str) -> WeightsError:
    return WeightsError(
        "LOOKALIKE_WEIGHTS_URL must be an http://, https:// or file:// URL, "
        f"or the path of a file, but got {shown(text)}; {CORRECT_SOURCE}"
    )


def _problem_of(source: _Source) -> str | None:
    """Why a file of this machine cannot be used, and what to do; None if it can be used."""
    file, expected = source.file, source.sha256_start
    origin = "in its name" if CHECKSUM_IN_NAME.search(file.name) else "of torchvision's file"
    try:
        if not file.exists():
            return f"which does not exist; {CORRECT_SOURCE}"
        if not file.is_file():
            return f"which is not a file; {CORRECT_SOURCE}"
        if not file.name.endswith(TORCH_SUFFIXES):
            return f"which must end in {', '.join(TORCH_SUFFIXES)}; {CORRECT_SOURCE}"
        actual = file_sha256(file)[: len(expected)]
        return (
            None
            if actual == expected
            else (
                f"whose SHA-256 starts with {actual} instead of {expected}, the checksum {origin}; "
                f"copy the file again, or {CORRECT_SOURCE}"
            )
        )
    except OSError as error:
        return f"which cannot be read ({error.strerror}); make it readable, or {CORRECT_SOURCE}"


def _download(url: str, source: _Source) -> None:
    """Download the weights into the cache; raises WeightsError."""
    try:
        download(url, source.file, source.sha256_start)
    except RefusedError as error:
        raise WeightsError(f"{error}; {source.remedy}") from error
    except DownloadError as error:
        again = "run the command again to continue"
        raise WeightsError(f"{error}; {again}, or {source.remedy}") from error
    except StorageError as error:
        raise WeightsError(
            f"{error}; free some disk space, or {OTHER_CACHE}, and run the command again"
        ) from error
