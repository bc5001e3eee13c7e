"""What a long command shows while it runs."""

import io

import pytest
from rich.console import Console

from training.progress import Bar, console


def test_on_a_terminal_a_bar_shows_done_total_and_the_live_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "training.progress.console", Console(file=screen, force_terminal=True, width=160)
    )
    with Bar("Decoding", 10) as bar:
        bar.advance(4, "loss 0.500")
        bar.advance(6)
    for part in ("Decoding", "10/10", "loss 0.500", "left"):
        assert part in screen.getvalue()


def test_in_a_log_file_a_bar_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("Decoding", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_files_name_is_printed_as_it_is_on_the_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "photos/[bold]cat[/1]:smile:" + "x" * 200 + ".jpg"
    console.print(name)
    assert capsys.readouterr() == ("", name + "\n")
