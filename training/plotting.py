"""Draw figures with Matplotlib, without a display."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from training.files import write_atomically

__all__ = ["plt", "save_figure"]


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG file, atomically, and close the figure."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    plt.close(figure)
    write_atomically(file, png.getvalue())
