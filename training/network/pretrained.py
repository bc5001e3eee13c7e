"""The ImageNet weights of torchvision's AlexNet, downloaded once into a cache directory.

LOOKALIKE_WEIGHTS_URL names another source: a mirror, or a file on this machine. LOOKALIKE_CACHE
names another cache directory.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from training.errors import UserError
from training.files import file_sha256
from training.network.download import (
    DownloadError,
    StorageError,
    download,
    is_intact,
    is_reachable,
)
from training.network.model import IMAGENET
from training.progress import console

TORCH_SUFFIXES = (".pth", ".pt", ".safetensors")
"""The ends of the names of files with weights in torchvision's layout."""
CHECKSUM_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")
"""torchvision's file names contain the start of the SHA-256."""
REMEDY = (
    "run the command again to continue, set LOOKALIKE_WEIGHTS_URL to a mirror or to a file, "
    "or train from scratch with --init none"
)
STORAGE_REMEDY = (
    "free some disk space, or set LOOKALIKE_CACHE to another folder that you can write to, "
    "and run the command again"
)


class WeightsError(UserError):
    """The ImageNet weights are not available."""


@dataclass(frozen=True)
class _Source:
    """The origin of the weights, and the file that has them in the end."""

    url: str | None
    """None if `file` is the source itself."""
    file: Path
    sha256_start: str


def imagenet_weights() -> Path:
    """The file with the weights, downloaded if it is not at hand; raises WeightsError."""
    source = _find_source()
    try:
        if is_intact(source.file, source.sha256_start):
            return source.file
        if source.url is None:
            raise WeightsError(f"{_problem_of(source.file, source.sha256_start)}; {REMEDY}")
    except OSError as error:
        raise WeightsError(f"{source.file} cannot be read ({error.strerror}); {REMEDY}") from error
    manner = " again, because it is damaged" if source.file.exists() else ", once"
    console.print(f"Downloading {source.file}{manner}, from {urlsplit(source.url).hostname}")
    try:
        download(source.url, source.file, source.sha256_start)
    except DownloadError as error:
        raise WeightsError(f"{error}; {REMEDY}") from error
    except StorageError as error:
        raise WeightsError(f"{error}; {STORAGE_REMEDY}") from error
    return source.file


def cached_imagenet_weights() -> Path | None:
    """The file with the weights if it is at hand and intact. Nothing is downloaded.

    Raises WeightsError if LOOKALIKE_WEIGHTS_URL is malformed.
    """
    source = _find_source()
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
    if "://" not in text:
        file = Path(os.path.expanduser(text))
        return _Source(None, file, _checksum_in(file.name, official_name))
    if parts.scheme == "file" and host in (None, "localhost") and path:
        return _Source(None, Path(path), _checksum_in(Path(path).name, official_name))
    if parts.scheme not in ("http", "https") or not host:
        raise _malformed(text)
    # A file without a checksum in its name has to be the official one, so it gets that name.
    name = Path(path).name if CHECKSUM_IN_NAME.search(Path(path).name) else official_name
    if not name.endswith(TORCH_SUFFIXES):
        raise WeightsError(
            f"the file that LOOKALIKE_WEIGHTS_URL names must end in {', '.join(TORCH_SUFFIXES)}; "
            f"got {name}"
        )
    return _Source(text, cache_directory() / name, _checksum_in(name, official_name))


def _checksum_in(*names: str) -> str:
    """The checksum in the first of the names that has one."""
    return next(match[1] for name in names if (match := CHECKSUM_IN_NAME.search(name)))


def _malformed(text: str) -> WeightsError:
    return WeightsError(
        "LOOKALIKE_WEIGHTS_URL must be an http://, https:// or file:// URL, "
        f"or the path of a file; got {text}"
    )


def _problem_of(file: Path, sha256_start: str) -> str:
    """Why a file of this machine cannot be used."""
    if not file.exists():
        return f"LOOKALIKE_WEIGHTS_URL names {file}, which does not exist"
    if not file.is_file():
        return f"LOOKALIKE_WEIGHTS_URL names {file}, which is not a file"
    return (
        f"LOOKALIKE_WEIGHTS_URL names {file}, whose SHA-256 starts with "
        f"{file_sha256(file)[: len(sha256_start)]} instead of {sha256_start}"
    )
