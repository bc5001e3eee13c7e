"""What is a probe on a network's features worth for labels that it was not trained on?

    python -m benchmarks.probe MODEL FIT_DATA ASK_DATA [--seed N]

A probe is fitted on FIT_DATA and asked the images of ASK_DATA, beside the vote of the five nearest and chance: on the features of MODEL,
and on those of the same network before training, with the first weights of its recipe.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.record import record
from indexer.learned.probe import accuracies, fit
from indexer.storage.index import Index
from indexer.updates.build import build
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model
from training.network.model import read_card


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
    }
    record("probe", {**figures, **measured})


def make_untrained(model: Path, directory: Path, seed: int) -> None:
    """The same network before training."""
    card = read_card(model)
    network = AlexNet(Architecture(**card.architecture))
    initialize(network, card.recipe["initialization"], seed)
    save_model(
        network,
        directory,
        class_names=card.class_names,
        recipe={},
        data={"name": "none"},
        metrics={},
    )


def measure(fitted: Path, asking: Path) -> dict[str, Any]:
    """The probe's facts, with its accuracy on its own index's held-out fifth, and what it, the vote and chance reach on the other index."""
    index, other = Index.open(fitted), Index.open(asking)
    probe = fit(index)
    place_of = {label: place for place, label in enumerate(probe.facts.labels)}
    (features, labels), (queries, query_labels) = (
        (
            np.array(one.features[one.rows]),
            np.array([place_of.get(str(one.text(row)[1]), -1) for row in one.rows]),
        )
        for one in (index, other)
    )
    facts = asdict(probe.facts)
    asked = accuracies(
        features[labels >= 0], labels[labels >= 0], queries, query_labels, probe.logits(queries)
    )
    names = ("accuracy", "vote_euclidean", "vote_cosine", "chance")
    return {
        "num_items": facts["num_items"],
        "num_labels": len(facts["labels"]),
        "scaling": facts["scaling"],
        "inverse_penalty": facts["inverse_penalty"],
        "num_held_out": facts["num_held_out"],
        "held_out": {name: _rounded(facts[name]) for name in names},
        "num_asked": len(queries),
        "asked": {name: _rounded(asked[name]) for name in names},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    main()
