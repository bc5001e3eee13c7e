"""A file is checked by its content, and no other plugin of Pillow sees it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.data.formats.files import encoded, red, refusal
from training.data.formats.sniffing import check_file
from training.data.images import ImageError, read_square

ROOT = Path(__file__).parents[4]
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"]


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_recognised_and_any_prefix_of_it_is_an_error(kind: str) -> None:
    data = encoded(red(), kind)
    assert check_file(data).open().format == kind
    for length in range(12, len(data) - 40, max(1, len(data) // 60)):
        with pytest.raises(ImageError) as caught:
            read_square(data[:length], 67)
        assert caught.value.reason in ("empty", "not-an-image", "truncated")


@pytest.mark.parametrize("kind", ["PCX", "TGA", "ICO", "SGI", "EPS", "JPEG2000", "DDS"])
def test_other_formats_of_pillow_are_not_accepted(kind: str) -> None:
    assert refusal(check_file, encoded(red(), kind)).reason in ("not-an-image", "unsupported")


def test_only_the_allowed_plugins_are_loaded() -> None:
    """A damaged file would make Image.open load and try all plugins."""
    program = """
import sys
from training.data.images import ImageError, read_square
for data in (b"\\xff\\xd8\\xff", b"rubbish", b"GIF89a" + bytes(50)):
    try:
        read_square(data, 67)
    except ImageError:
        pass
print(*(name[4:-11] for name in sys.modules if name.startswith("PIL.") and "ImagePlugin" in name))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    allowed = {"Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif", "Ppm", "Mpo"}
    assert set(done.stdout.split()) <= allowed
