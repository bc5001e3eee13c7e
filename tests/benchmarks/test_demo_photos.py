from pathlib import Path

import pytest

from benchmarks.demo_photos import fill_cache
from training.network.pretrained import imagenet_weights


def test_the_demo_finds_the_weights_in_a_cache_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"made up")
    for name, value in fill_cache(tmp_path / "cache", weights).items():
        monkeypatch.setenv(name, value)
    found = imagenet_weights()
    assert found.parent == tmp_path / "cache"
    assert found.read_bytes() == b"made up"
