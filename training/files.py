"""Files that survive a crash: they are replaced as a whole, or stay as they were."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file's content. Whatever happens, the file holds all of the old content or all of the new."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces `file`, durably, if the block ends without an error.

    After an error nothing is left of the temporary file. An OSError, such as a full disk, names `file`.
    """
    temporary = file.with_name(f".{file.name}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, file)
        sync(file.parent)  # the rename itself has to survive a power cut
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise


def sync(path: Path) -> None:
    """Write a file's content, or a folder's list of names, to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
