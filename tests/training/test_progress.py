"""The display of a long command while it runs."""

import io

import pytest
from rich.console import Console

from training.progress import Bar, console


def test_a_bar_on_a_terminal_shows_done_total_and_the_live_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr("training.progress.console", terminal)
    with Bar("Decoding", 10) as bar:
        bar.advance(4, "loss 0.500")
        bar.advance(6)
    for text in ("Decoding", "10/10", "loss 0.500", "left"):
        assert text in screen.getvalue()


def test_a_bar_shows_nothing_if_the_standard_error_is_not_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Bar("Decoding", 10) as bar:
        bar.advance(10)
    assert bar.num_done == 10
    assert capsys.readouterr() == ("", "")


def test_a_bar_that_is_not_shown_counts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr("training.progress.console", terminal)
    with Bar("Decoding", 10, is_shown=False) as bar:
        bar.advance(3)
        bar.advance()
    assert bar.num_done == 4
    assert screen.getvalue() == ""


def test_a_files_name_is_printed_unchanged_on_the_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "photos/[bold]cat[/1]:smile:" + "x" * 200 + ".jpg"
    console.print(name)
    assert capsys.readouterr() == ("", name + "\n")


@pytest.mark.parametrize(
    "name", ["\x1b]0;title\x07.jpg", "\x1b[2J\x1b[1;1H", "a\rb", "\x9b31m", "\u202egpj.exe"]
)
def test_a_files_name_cannot_control_the_terminal(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console.print(f"Skipped {name}\nnext line")
    err = capsys.readouterr().err
    assert err.removeprefix("Skipped ").endswith("\nnext line\n")
    assert all(character.isprintable() for line in err.split("\n") for character in line)
