"""A service follows its index while other processes change it."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexer.opening import OpenIndex, open_index
from indexer.storage.codes import MIN_CODED_ITEMS
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.compact import compact
from indexer.updates.remove import remove
from service import live_index
from service.snapshot import Snapshot
from tests.conftest import coloured
from tests.service.conftest import ENCODER, Run, Service
from tests.service.figures import figure
from tests.service.pictures import picture, upload, wait_until

ROOT = Path(__file__).parents[2]
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
        for step in steps:
            step()
            newest = read_manifest(own_index).commit
            wait_until(partial(_serves, service, newest))
        assert service.client.get("/info").json()["index"]["metrics"][-1] == "hamming"
        wait_until(lambda: bool(answers) and answers[-1]["commit"] == newest)
    commits = [answer["commit"] for answer in answers]
    assert commits == sorted(commits)


def test_an_answer_never_mixes_two_commits(run: Run, own_index: Path, tmp_path: Path) -> None:
    """Item by item, the best match of every query is replaced by a new one."""
    query = picture("red")
    file = tmp_path / "again.png"
    file.write_bytes(query)
    ids: dict[int, list[int]] = {}

    def note() -> None:
        opened = open_index(own_index)
        matches = opened.similar(query, k=10)
        ids[opened.index.manifest.commit] = [match.item.id for match in matches]

    note()
    with run(index=own_index, poll_s=0.01) as service, asking(service) as answers:
        for _ in range(6):
            add(own_index, [str(file)])
            note()
            newest = max(ids)
            wait_until(partial(_serves, service, newest))
            remove(own_index, ids=[ids[newest][0]])
            note()
            wait_until(partial(_serves, service, max(ids)))
        count = len(answers)
        wait_until(lambda: len(answers) > count + 1)
    seen = {answer["commit"] for answer in answers}
    assert len(seen) > 3
    for answer in answers:
        found = [match["id"] for match in answer["results"][0]["matches"]]
        assert found == ids[answer["commit"]]


def lookalike(*arguments: object) -> None:
    """Run a command in a process of its own. It must succeed."""
    command = [sys.executable, "-m", "lookalike", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_of_the_indexer_work_beside_a_running_service(
    run: Run, own_index: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    more.mkdir()
    for number in range(MIN_CODED_ITEMS):
        coloured("blue", 70 + number).save(more / f"{number}.png")
    with run(index=own_index, poll_s=POLL_S) as service, asking(service) as answers:
        for arguments in (
            ("add", own_index, more),
            ("remove", own_index, "--id", 2),
            ("compact", own_index, "--force"),
            ("encode", own_index, "--bits", 16, "--device", "cpu"),
            ("probe", own_index),
        ):
            lookalike("index", *arguments)
            wait_until(partial(_serves, service, read_manifest(own_index).commit))
        index = service.client.get("/info").json()["index"]
        assert (index["num_items"], index["metrics"][-1]) == (18 + MIN_CODED_ITEMS - 1, "hamming")
        assert index["probe"]
        assert index["problem"] is None
    assert len({answer["commit"] for answer in answers}) > 1
    lookalike("index", "verify", own_index)


def test_a_commit_that_was_made_while_the_service_started_is_taken_over(
    run: Run, own_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_out = Snapshot.try_out

    def try_out_slowly(snapshot: Snapshot) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Snapshot, "try_out", try_out)
            if read_manifest(own_index).num_items == 18:
                remove(own_index, ids=[1])
        try_out(snapshot)

    monkeypatch.setattr(Snapshot, "try_out", try_out_slowly)
    with run(index=own_index, poll_s=POLL_S) as service:
        wait_until(lambda: service.client.get("/items").json()["total"] == 17)


@pytest.fixture
def num_tries(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many times a service has tried to open its newest commit."""
    tries: list[OpenIndex] = []
    reopened = OpenIndex.reopened

    def note(index: OpenIndex) -> OpenIndex:
        tries.append(index)
        return reopened(index)

    monkeypatch.setattr(OpenIndex, "reopened", note)
    return lambda: len(tries)


def test_a_service_does_not_open_a_commit_twice(
    run: Run, own_index: Path, num_tries: Callable[[], int]
) -> None:
    with run(index=own_index, poll_s=0.01) as service:
        for number in range(30):
            assert service.client.get("/livez").status_code == 200
            if number == 15:
                remove(own_index, ids=[1])
        wait_until(lambda: commit_of(service) == read_manifest(own_index).commit)
        for _ in range(15):
            commit_of(service)
    assert num_tries() == 1


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


@pytest.fixture
def foreign(tmp_path: Path, other_model: Path) -> Path:
    """An index of another model. It has two items with the label `violet`."""
    for seed in range(2):
        file = tmp_path / "foreign photos" / "violet" / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coloured("red", 500 + seed).save(file)
    directory = tmp_path / "foreign"
    build(str(tmp_path / "foreign photos"), other_model, directory, device="cpu")
    return directory


def test_an_index_of_another_model_is_taken_over_with_its_model(
    run: Run, own_index: Path, foreign: Path, tmp_path: Path
) -> None:
    expected = open_index(foreign).features([picture()])
    with run(index=own_index, poll_s=POLL_S) as service, asking(service) as answers:
        own_index.rename(tmp_path / "old")
        foreign.rename(own_index)
        model = read_manifest(own_index).model_id
        wait_until(lambda: service.client.get("/info").json()["model"]["id"] == model)
        wait_until(lambda: bool(answers) and answers[-1]["model"] == model)
        response = service.client.post("/features", files=upload(picture()))
        features = response.json()["results"][0]["features"]
        np.testing.assert_allclose(features, expected[0], atol=1e-3)
    for answer in answers:
        labels = {match["label"] for match in answer["results"][0]["matches"]}
        assert (labels == {"violet"}) == (answer["model"] == model)


def test_an_index_of_another_model_is_refused_if_the_model_was_given(
    run: Run,
    own_index: Path,
    foreign: Path,
    tiny_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        run(index=own_index, model=tiny_model, poll_s=POLL_S) as service,
        asking(service) as answers,
    ):
        own_index.rename(tmp_path / "old")
        foreign.rename(own_index)
        wait_until(lambda: problem_of(service) is not None)
        assert "was built with model" in str(problem_of(service))
        for path in (own_index, tiny_model):
            assert str(path) not in str(problem_of(service))
            assert str(path) in caplog.text
        assert service.client.get("/info").json()["index"]["num_items"] == 18
        count = len(answers)
        wait_until(lambda: len(answers) > count)
        own_index.rename(tmp_path / "foreign")
        (tmp_path / "old").rename(own_index)
        wait_until(lambda: problem_of(service) is None)


def test_a_missing_file_leaves_the_old_commit_serving_until_it_is_restored(
    run: Run,
    own_index: Path,
    num_tries: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The manifest is not written again when the file is restored."""
    monkeypatch.setattr(live_index, "RETRY_S", 0.1)
    with run(index=own_index, poll_s=POLL_S) as service, asking(service):
        manifest = own_index / MANIFEST_FILE
        earlier = manifest.read_bytes()
        remove(own_index, ids=[1])
        wait_until(lambda: service.client.get("/items").json()["total"] == 17)
        later = manifest.read_bytes()
        features = own_index / read_manifest(own_index).files["features"].file
        features.rename(own_index / "moved")
        manifest.write_bytes(earlier)
        wait_until(lambda: problem_of(service) is not None)
        assert features.name in str(problem_of(service))
        wait_until(lambda: num_tries() >= 4)  # one for each manifest, and two more
        assert caplog.text.count("still serving commit") == 1
        assert figure(service.client, "index_swaps_total", result="failed") == 1
        (own_index / "moved").rename(features)
        wait_until(lambda: problem_of(service) is None)
        assert service.client.get("/items").json()["total"] == 18
        manifest.write_bytes(later)
        wait_until(lambda: service.client.get("/items").json()["total"] == 17)


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
