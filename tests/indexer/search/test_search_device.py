"""The device that FAISS searches on. Only a GPU that FAISS can use is chosen."""

from collections.abc import Iterator

import faiss
import pytest

from indexer.search import search_device
from indexer.search.search_device import gpu_problem, resolve_search_device
from training.errors import UserError


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    yield
    gpu_problem.cache_clear()
    search_device._print_once.cache_clear()


def pretend_one_gpu(monkeypatch: pytest.MonkeyPatch, probe: str) -> None:
    """Let FAISS see a GPU, and try it with the program `probe`."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(search_device, "TRIAL_SEARCH", probe)


def test_without_a_gpu_the_cpu_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert (resolve_search_device("cpu"), resolve_search_device("auto")) == ("cpu", "cpu")
    with pytest.raises(UserError, match="FAISS finds none here; pass --device cpu"):
        resolve_search_device("gpu")


def test_a_gpu_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_one_gpu(monkeypatch, probe="pass")
    assert (resolve_search_device("auto"), resolve_search_device("gpu")) == ("gpu", "gpu")
    assert resolve_search_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        pytest.param("raise RuntimeError('out of memory')", "out of memory", id="no memory"),
        pytest.param("import os; os.abort()", "status -6", id="no kernels: FAISS aborts"),
    ],
)
def test_a_gpu_that_faiss_cannot_use_gives_the_cpu_and_one_line(
    probe: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_one_gpu(monkeypatch, probe)
    assert [resolve_search_device("auto") for _ in range(3)] == ["cpu"] * 3
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.startswith("The CPU searches, because FAISS")
    assert printed.count("The CPU searches") == 1
    assert reason in printed
    with pytest.raises(UserError, match=r"cannot search on the GPU .*; pass --device cpu"):
        resolve_search_device("gpu")


def test_a_probe_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_one_gpu(monkeypatch, probe="import time; time.sleep(60)")
    monkeypatch.setattr(search_device, "TRIAL_TIMEOUT_S", 0.3)
    assert "did not answer" in (gpu_problem() or "")


@pytest.mark.gpu
def test_this_gpu_can_be_searched() -> None:
    assert gpu_problem() is None
