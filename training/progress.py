"""The progress bar of long commands, and the console that commands print their messages to."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.naming import printable


class PlainConsole(Console):
    """A console whose messages cannot control the terminal, even if they contain file names."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects. Unprintable characters of texts are escaped, except line breaks."""
        texts = (printable(one) if isinstance(one, str) else one for one in objects)
        super().print(*texts, **options)


console = PlainConsole(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
"""Messages for people go to standard error. Results for programs go to standard output."""


class Bar:
    """A progress bar with the number of finished images, the total, the rate and the time left.

    It also shows the elapsed time, and a text with current values such as the loss. Use the bar as
    a context manager. If standard error is not a terminal, nothing is shown. If `total` is None,
    the total is shown as unknown.
    """

    def __init__(
        self, title: str, total: int | None, unit: str = "images", *, is_shown: bool = True
    ):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (is_shown and console.is_terminal),
        )
        self._unit = unit
        self.num_done = 0
        self._task: TaskID = self._progress.add_task(title, total=total, rate="", text="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, count: int = 1, text: str | None = None) -> None:
        """Add `count` to the number of finished images. `text` replaces the text of the bar."""
        self.num_done += count
        task = self._progress.tasks[0]
        rate = f"{task.speed:,.0f} {self._unit}/s" if task.speed else ""
        if text is None:
            self._progress.update(self._task, advance=count, rate=rate)
        else:
            self._progress.update(self._task, advance=count, rate=rate, text=text)
