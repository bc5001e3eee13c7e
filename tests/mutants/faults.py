"""The list of known faults in faults.toml, and how to put one into a copy of the project."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("faults.toml")


@dataclass(frozen=True)
class Fault:
    """A small change that makes the code wrong, and the tests that must fail because of it."""

    what: str
    """One sentence: what goes wrong."""
    file: str
    """Relative to the project's folder."""
    old: str
    """The right text. It occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Test files, or test functions as `file::function`."""

    def put_into(self, root: Path) -> None:
        """Change the file in the project at `root`; raises ValueError if it does not fit."""
        file = root / self.file
        text = file.read_text("utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(
                f"{self.what} The old text occurs {count} times in {self.file}, expected once; "
                f"bring tests/mutants/faults.toml up to date: {self.old!r}"
            )
        file.write_text(text.replace(self.old, self.new), "utf-8")


def read_faults(file: Path = LIST) -> list[Fault]:
    """The faults of the list, in its order."""
    return [
        Fault(**{**entry, "tests": tuple(entry["tests"])})
        for entry in tomllib.loads(file.read_text("utf-8"))["fault"]
    ]
