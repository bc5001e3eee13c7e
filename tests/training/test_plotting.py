"""Figures are drawn without a display and written as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from training.plotting import plt, save_figure

ROOT = Path(__file__).parents[2]


def test_a_figure_becomes_a_png_file_and_is_closed(tmp_path: Path) -> None:
    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1])
    save_figure(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert (image.format, image.size) == ("PNG", (220, 110))
    assert not plt.fignum_exists(figure.number)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_a_figure_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figure.png").write_bytes(b"old")

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    figure = plt.figure()
    with pytest.raises(OSError, match=r"figure\.png"):
        save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == b"old"
    assert not plt.fignum_exists(figure.number)


def test_no_display_is_needed() -> None:
    program = "from training.plotting import plt; assert plt.get_backend().lower() == 'agg'"
    subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"MPLBACKEND": "tkagg"}, check=True
    )
