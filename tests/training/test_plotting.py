"""Figures are drawn without a display and written as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from training.plotting import MAX_LABEL_LENGTH, label_text, plt, save_figure

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


@pytest.mark.parametrize("label", [r"a $\frac$ b", "$x", r"$\sum_{$", "$" * 50, "a\n\x1b[31m\0b"])
def test_a_label_is_drawn_as_it_is(label: str, tmp_path: Path) -> None:
    figure = plt.figure(figsize=(8, 6), layout="constrained")
    axes = figure.add_subfigure(figure.add_gridspec(1, 1)[0]).subplots()
    axes.set_title(label_text(label))
    axes.set(xlabel=label_text(label), ylabel=label_text(label))
    axes.text(0.5, 0.5, label_text(label))
    axes.plot([0, 1], label=f" {label_text(label)}")
    axes.legend()
    save_figure(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.format == "PNG"


def test_tex_is_not_called_even_if_the_users_settings_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plt.rcParams, "text.usetex", True)
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no TeX
    figure, axes = plt.subplots()
    axes.set_title(r"\input{/etc/passwd}")
    save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()


def test_a_label_is_on_one_line_and_not_too_long() -> None:
    assert label_text(None) == ""
    assert label_text("a\nb") == r"a\nb"
    assert label_text("x" * 1000) == "x" * MAX_LABEL_LENGTH + "..."
