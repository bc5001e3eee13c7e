"""How well does a probe on a network's features name labels that the network was not trained on?

    python -m benchmarks.probe MODEL FIT_DATA ASK_DATA [--seed N]

A probe is fitted on FIT_DATA. It then predicts the labels of the images of ASK_DATA. For
comparison, a vote of the five nearest items and chance are also measured. This is done once with
the features of MODEL, and once with the features of the untrained network. The untrained network
has the initial weights of MODEL's recipe.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.record import record
from indexer.array_types import Floats, Rows
from indexer.learned.probe_fitting import accuracies, fit
from indexer.storage.index import Index
from indexer.updates.build import build
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model
from training.network.model import read_card

ACCURACIES = ("accuracy", "vote_euclidean", "vote_cosine", "chance")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("fit_data")
    parser.add_argument("ask_data")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    card = read_card(arguments.model)
    with TemporaryDirectory() as scratch:
        untrained = Path(scratch, "model")
        make_untrained(arguments.model, untrained, arguments.seed)
        measured = {}
        for name, model in (("trained", arguments.model), ("untrained", untrained)):
            for part, data in (("fit", arguments.fit_data), ("ask", arguments.ask_data)):
                build(data, model, Path(scratch, name, part), device="cpu")
            measured[name] = measure(Path(scratch, name, "fit"), Path(scratch, name, "ask"))
    figures = {
        "model": card.id[:12],
        "trained_on": Path(card.data["name"]).name,
        "fit_data": arguments.fit_data,
        "ask_data": arguments.ask_data,
        **measured,
    }
    record("probe", figures, model=arguments.model)


def make_untrained(model: Path, directory: Path, seed: int) -> None:
    """Write a model directory with the network of `model` before training."""
    card = read_card(model)
    network = AlexNet(Architecture(**card.architecture))
    initialize(network, card.recipe.get("initialization", "kaiming"), seed)
    save_model(
        network,
        directory,
        class_names=card.class_names,
        recipe={},
        data={"name": "none"},
        metrics={},
    )


def measure(fitted: Path, asked: Path) -> dict[str, Any]:
    """Fit a probe on the index `fitted`, and measure it on its held-out fifth and on `asked`."""
    index, other = Index.open(fitted), Index.open(asked)
    probe = fit(index)
    facts = asdict(probe.facts)
    features, labels = _labelled_features(index, probe.facts.labels)
    queries, query_labels = _labelled_features(other, probe.facts.labels)
    is_labelled = labels >= 0
    on_others = accuracies(
        features[is_labelled], labels[is_labelled], queries, query_labels, probe.logits(queries)
    )
    return {
        "num_items": facts["num_items"],
        "num_labels": len(facts["labels"]),
        "scaling": facts["scaling"],
        "inverse_penalty": facts["inverse_penalty"],
        "num_held_out": facts["num_held_out"],
        "held_out": {name: _rounded(facts[name]) for name in ACCURACIES},
        "num_asked": len(queries),
        "asked": {name: _rounded(on_others[name]) for name in ACCURACIES},
    }


def _labelled_features(index: Index, labels: tuple[str, ...]) -> tuple[Floats, Rows]:
    """The features (n, 4096) of an index, and the positions (n,) of their labels in `labels`.

    The position is -1 if `labels` does not contain the label.
    """
    positions = {label: position for position, label in enumerate(labels)}
    own_labels = [positions.get(str(index.text(row)[1]), -1) for row in index.rows]
    return np.array(index.features[index.rows]), np.array(own_labels)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    main()
