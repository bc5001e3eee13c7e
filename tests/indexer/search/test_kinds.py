"""The choice of the kind of search, and the memory that a kind takes."""

from pathlib import Path

import pytest

from indexer.metrics import METRICS, Metric
from indexer.search.kinds import MAX_FLAT_ITEMS, choose, estimate_bytes, num_lists, parse_kind
from indexer.storage.manifest import read_manifest
from tests.indexer.search.structures import NUM_ITEMS
from training.errors import UserError

GB = 10**9


@pytest.mark.parametrize(
    ("count", "memory_gb", "kind"),
    [
        (0, 1, "flat"),
        (MAX_FLAT_ITEMS, 0.001, "flat"),
        (MAX_FLAT_ITEMS + 1, 4, "ivf"),
        (100_000, 4, "ivf"),
        (100_000, 3, "ivf-fp16"),
        (100_000, 1, "ivf-sq8"),
        (1_000_000, 64, "ivf"),
        (1_000_000, 24, "ivf-fp16"),
        (1_000_000, 12, "ivf-sq8"),
    ],
)
def test_auto_takes_the_most_precise_kind_that_fits(
    count: int, memory_gb: float, kind: str
) -> None:
    choice = choose("auto", count, int(memory_gb * GB))
    assert (choice.kind, choice.warning) == (kind, None)
    assert choice.memory_bytes <= memory_gb * GB


def test_a_kind_that_does_not_fit_is_chosen_with_a_warning_of_what_it_needs() -> None:
    for requested in ("auto", "ivf-sq8"):
        choice = choose(requested, 1_000_000, GB)
        assert choice.kind == "ivf-sq8"
        assert choice.warning is not None
        assert "ivf-sq8 needs about 8.3 GB of memory but --memory allows 1.0 GB" in choice.warning
    assert choose("hnsw-fp16", 10, GB).kind == "hnsw-fp16"


@pytest.mark.parametrize("metric", METRICS)
def test_a_structure_takes_the_memory_that_was_estimated(built: Path, metric: Metric) -> None:
    artefact = read_manifest(built).artefacts[metric]
    assert artefact.facts["memory_bytes"] == estimate_bytes(
        artefact.facts["kind"], NUM_ITEMS - 1
    ) // len(METRICS)
    assert artefact.num_bytes == pytest.approx(artefact.facts["memory_bytes"], rel=0.03)


def test_the_number_of_lists_grows_with_the_root_of_the_items_up_to_a_limit() -> None:
    assert [num_lists(count) for count in (0, 1, 600, 10_000, 10**6, 10**8)] == [
        1,
        1,
        15,
        200,
        1680,
        1680,
    ]


def test_a_kind_is_one_of_the_names_or_auto() -> None:
    assert [parse_kind(name) for name in ("auto", "flat", "hnsw-sq8")] == [
        "auto",
        "flat",
        "hnsw-sq8",
    ]
    with pytest.raises(UserError, match=r"--kind must be one of auto, flat, .*, got 'ivf-pq'"):
        parse_kind("ivf-pq")
