"""Replace files safely: after a crash, a file has either its old content or its new content."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file's content. After a crash the file has the old content or the new."""
    with replacing(file) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. If the block succeeds, replace `file` with that file.

    The replacement survives a power cut. After an error the temporary file is removed. If an
    OSError has no file name, for example because the disk is full, it gets the name of `file`.
    """
    temporary = file.with_name(f".{file.name}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, file)
        sync(file.parent)  # the rename must survive a power cut too
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise


def sync(path: Path) -> None:
    """Flush a file or a folder's list of names to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
