"""Draw figures with Matplotlib, without a display.

Texts in figures can be labels from users. So they are drawn as they are: a dollar sign begins no
formula, and TeX is never called.
"""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from training.files import write_atomically
from training.naming import one_line

__all__ = ["label_text", "plt", "save_figure"]

MAX_LABEL_LENGTH = 40
"""Maximum number of characters of a label in a figure."""


def label_text(label: str | None) -> str:
    """A label on one line, cut off if it is long. It is empty if there is no label."""
    line = one_line(label or "")
    return line if len(line) <= MAX_LABEL_LENGTH else f"{line[:MAX_LABEL_LENGTH]}..."


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file, atomically, and close the figure."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_usetex(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    plt.close(figure)
    write_atomically(file, png.getvalue())
