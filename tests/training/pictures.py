"""Checks of drawn pictures."""

from pathlib import Path

from PIL import Image


def assert_is_a_picture(file: Path) -> None:
    """The file is a PNG of some width that is not blank."""
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(set(image.convert("L").tobytes())) > 10
