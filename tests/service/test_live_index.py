"""A service follows its index while other processes change it."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from tests.conftest import coloured
from tests.service.conftest import ENCODER, Run, Service
from tests.service.pictures import picture, upload, wait_until

POLL_S = 0.05


@contextmanager
def asking(service: Service) -> Iterator[list[dict[str, Any]]]:
    """Send queries in another thread, and collect the answers. None of them may fail."""
    answers: list[dict[str, Any]] = []
    failed: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            while not is_over.is_set():
                response = client.post("/similar?k=10", files=upload(picture()))
                if response.status_code != 200:
                    failed.append(response.text)
                    return
                answers.append(response.json())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        thread.join()
    assert not failed


def commit_of(service: Service) -> int:
    return int(service.client.get("/info").json()["index"]["commit"])


def _serves(service: Service, commit: int) -> bool:
    return commit_of(service) == commit


def problem_of(service: Service) -> str | None:
    problem: str | None = service.client.get("/info").json()["index"]["problem"]
    return problem


def test_changes_of_other_processes_are_taken_over_without_a_failed_request(
    run: Run, own_index: Path, tmp_path: Path
) -> None:
    coloured("blue", 77).save(tmp_path / "new.png")
    steps: list[Callable[[], object]] = [
        lambda: add(own_index, [str(tmp_path / "new.png")]),
        lambda: remove(own_index, ids=[2]),
        lambda: compact(own_index),
        lambda: _encode(own_index),
    ]
    with run(index=own_index, poll_s=POLL_S) as service, asking(service) as answers:
        commits_of_steps = []
        for step in steps:
            step()
            newest = read_manifest(own_index).commit
            commits_of_steps.append(newest)
            wait_until(partial(_serves, service, newest))
        assert service.client.get("/info").json()["index"]["metrics"][-1] == "hamming"
        wait_until(lambda: bool(answers) and answers[-1]["commit"] == newest)
    commits = [answer["commit"] for answer in answers]
    assert commits == sorted(commits)
    for answer in answers:
        ids = [match["id"] for match in answer["results"][0]["matches"]]
        assert 2 not in ids or answer["commit"] < commits_of_steps[1]


def test_a_wholly_new_index_is_taken_over(
    run: Run, own_index: Path, tmp_path: Path, tiny_model: Path
) -> None:
    photos = tmp_path / "photos"
    for seed in range(3):
        file = photos / "violet" / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coloured("red", 500 + seed).save(file)
    other = tmp_path / "other"
    build(str(photos), tiny_model, other)
    with run(index=own_index, poll_s=POLL_S) as service, asking(service) as answers:
        own_index.rename(tmp_path / "old")
        other.rename(own_index)
        wait_until(
            lambda: list(service.client.get("/info").json()["index"]["labels"]) == ["violet"]
        )
        count = len(answers)
        wait_until(lambda: len(answers) > count + 1)
        labels = {match["label"] for match in answers[-1]["results"][0]["matches"]}
        assert labels == {"violet"}


@pytest.mark.parametrize("content", [b"", b"{}", b"not json"])
def test_a_damaged_manifest_leaves_the_old_commit_serving(
    run: Run, own_index: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = own_index / MANIFEST_FILE
    good = manifest.read_bytes()
    with run(index=own_index, poll_s=POLL_S) as service, asking(service):
        commit = commit_of(service)
        manifest.write_bytes(content)
        wait_until(lambda: problem_of(service) is not None)
        assert commit_of(service) == commit
        assert str(own_index) not in str(problem_of(service))
        assert f"still serving commit {commit}" in caplog.text
        failed = 'lookalike_index_swaps_total{result="failed"} 1.0'
        assert failed in service.client.get("/metrics").text
        manifest.write_bytes(good)
        wait_until(lambda: problem_of(service) is None)


def test_an_index_of_another_model_is_refused_if_the_model_is_given(
    run: Run, own_index: Path, tmp_path: Path
) -> None:
    with run(index=own_index, poll_s=POLL_S) as service:
        manifest = read_manifest(own_index)
        text = (own_index / MANIFEST_FILE).read_text()
        (own_index / MANIFEST_FILE).write_text(text.replace(manifest.model_id, "0" * 64))
        wait_until(lambda: problem_of(service) is not None)
        assert service.client.post("/similar", files=upload(picture())).status_code == 200


def test_an_index_that_vanishes_leaves_the_old_commit_serving(
    run: Run, own_index: Path, tmp_path: Path
) -> None:
    with run(index=own_index, poll_s=POLL_S) as service:
        shutil.move(own_index, tmp_path / "elsewhere")
        wait_until(lambda: problem_of(service) is not None)
        assert service.client.post("/similar", files=upload(picture())).status_code == 200
        shutil.move(tmp_path / "elsewhere", own_index)
        wait_until(lambda: problem_of(service) is None)


def _encode(directory: Path) -> None:
    with IndexWriter.open(directory) as writer:
        writer.write_codes(ENCODER)
        writer.commit()
