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
    """Yield the path of a temporary file. If the `with` block succeeds, it replaces `file`.

    The new content of `file` survives a power cut. If the block fails, the temporary file is
    removed. An OSError without a file name, such as the one for a full disk, is raised again with
    the name of `file`.
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
    """Flush a file to the disk, so that it survives a power cut.

    If `path` is a folder, the names of its files are flushed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
