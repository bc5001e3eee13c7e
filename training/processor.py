"""Find out whether the processor of this machine has instructions for int8."""

import platform
import re
from pathlib import Path

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
"""Names of the instructions that multiply bytes and add the products in 32 bits. The first two are
those of x86 (VNNI), the last is that of ARM (dot product)."""
PROCESSOR_FILE = Path("/proc/cpuinfo")
"""The file in which Linux lists the instructions of each core."""


def has_int8_instructions() -> bool:
    """Whether the processor has instructions for sums of products of bytes.

    Every ARM processor of Apple has them. On other systems than Linux and macOS, the result is
    False.
    """
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    try:
        text = PROCESSOR_FILE.read_text("utf-8", "replace")
    except OSError:
        return False
    lists = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    # A machine can have cores of different kinds, and a thread can run on any of them.
    return bool(lists) and all(INT8_FLAGS & set(flags.split()) for flags in lists)
