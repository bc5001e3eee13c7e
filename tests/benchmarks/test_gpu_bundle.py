"""The bundle for a GPU machine: sources, locked packages and small images."""

import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.gpu_bundle import (
    FOLDER,
    IMAGE_SIZE,
    PACKAGES,
    copy_images,
    copy_sources,
    locked,
    pack,
)
from benchmarks.record import ROOT, commit_of
from tests.conftest import coloured
from training.data.datasets import open_dataset
from training.data.images import canvas_px

LOCK = """# made by a program
click==8.1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via
    #   typer
numpy==2.0.0 ; python_full_version < '3.12' \\
    --hash=sha256:cc
rich==15.0.0 \\
    --hash=sha256:dd
    # via typer
"""


def test_packages_are_taken_from_the_lock_with_their_hashes() -> None:
    assert list(locked(LOCK, ["rich", "click"])) == [
        "rich==15.0.0 \\\n    --hash=sha256:dd\n",
        "click==8.1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb",
    ]


def test_every_package_of_the_bundle_is_in_the_lock() -> None:
    lock = (ROOT / "requirements" / "dev.txt").read_text()
    for name, requirement in zip(PACKAGES, locked(lock, PACKAGES), strict=True):
        assert requirement.startswith(f"{name}==")
        assert "--hash=" in requirement


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, an ignored file and an untracked file."""
    root = tmp_path / "repository"
    (root / "package").mkdir(parents=True)
    (root / "docs").mkdir()
    (root / "package" / "code.py").write_text("tracked")
    (root / "docs" / "page.md").write_text("left out")
    (root / ".gitignore").write_text("ignored.txt\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    (root / "ignored.txt").write_text("ignored")
    (root / "new.py").write_text("untracked")
    return root


def test_the_sources_are_those_of_the_working_tree(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    copy_sources(repository, folder)
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert names == [".gitignore", "COMMIT", "new.py", "package/code.py", "run"]
    commit, is_dirty = commit_of(repository)
    assert is_dirty
    assert commit_of(folder) == (f"{commit}", True)


def test_images_keep_their_classes_and_become_small_squares(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for label in ("red", "blue"):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for number in range(count):
                image = coloured(label, number, (300, 200))
                image.save(tmp_path / "data" / part / label / f"{number}.jpg")
    copy_images(tmp_path / "data", tmp_path / "small", quality=20)
    small = open_dataset(tmp_path / "small")
    assert [len(small.part("train")), len(small.part("held-out"))] == [6, 4]
    assert {example.label for example in small.part("all")} == {"red", "blue"}
    for file in (tmp_path / "small").rglob("*.webp"):
        with Image.open(file) as image:
            assert image.size == (canvas_px(IMAGE_SIZE), canvas_px(IMAGE_SIZE))


def test_the_archive_unpacks_to_one_folder_without_owners_and_times(tmp_path: Path) -> None:
    folder = tmp_path / "anything"
    (folder / "packages").mkdir(parents=True)
    (folder / "packages" / "module.py").write_text("code")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    pack(folder, tmp_path / "out.tar.xz")
    with tarfile.open(tmp_path / "out.tar.xz") as archive:
        entries = {entry.name: entry for entry in archive}
    assert set(entries) == {
        FOLDER,
        f"{FOLDER}/packages",
        f"{FOLDER}/packages/module.py",
        f"{FOLDER}/run",
    }
    assert {(entry.uid, entry.mtime, entry.uname) for entry in entries.values()} == {(0, 0, "")}
    assert entries[f"{FOLDER}/run"].mode & 0o111
