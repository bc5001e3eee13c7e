from pathlib import Path

from benchmarks.probe import make_untrained, measure
from training.network.model import read_card


def test_a_probe_names_the_labels_of_another_index_with_the_same_colours(tiny_index: Path) -> None:
    figures = measure(tiny_index, tiny_index)
    assert (figures["num_labels"], figures["num_asked"]) == (3, 18)
    assert figures["asked"]["accuracy"] == 1
    assert figures["asked"]["vote_euclidean"] == 1
    assert figures["asked"]["chance"] == round(1 / 3, 4)


def test_the_untrained_network_has_the_same_shape_and_other_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    card = read_card(tiny_model)
    make_untrained(tiny_model, tmp_path / "model", seed=5)
    untrained = read_card(tmp_path / "model")
    assert untrained.architecture == card.architecture
    assert untrained.class_names == card.class_names
    assert untrained.id != card.id
