"""The default memory limit for searches, and the conversion of memory sizes from and to text."""

import os
import re
from pathlib import Path

from training.errors import UserError

_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_CGROUP_LIMIT_FILE = Path("/sys/fs/cgroup/memory.max")


def default_memory_bytes() -> int:
    """Half of the machine's memory, or half of the container's limit if the limit is smaller."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP_LIMIT_FILE.read_text().strip() if _CGROUP_LIMIT_FILE.is_file() else "max"
    return min(total, int(limit) if limit.isdecimal() else total) // 2


def parse_memory(text: str) -> int:
    """The number of bytes in `4GB`, `512 MiB` or `1000000000`; raises UserError."""
    size = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    num_bytes = int(float(size[1]) * _UNITS[size[2] or ""]) if size else 0
    if not num_bytes:
        raise UserError(f"--memory must be a size such as 4GB, 512MB or 1.5GiB, got {text!r}")
    return num_bytes


def format_size(num_bytes: int) -> str:
    """The text of a size, such as `4.0 GB`, `512.0 MB` or `1.0 kB`."""
    units = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
    unit, name = next((pair for pair in units if num_bytes >= pair[0]), units[-1])
    return f"{num_bytes / unit:,.1f} {name}"
