"""How good is a model, and how often do its look-alikes share the query's label?

    python -m benchmarks.look_alikes MODEL INDEX DATA [--name NAME]

DATA are labelled images; those that are in the index too are not counted as their own look-alikes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import record
from benchmarks.training_accuracy import accuracy
from indexer.answers import answer, without_itself
from indexer.embedder import Embedder
from indexer.opening import open_for_queries
from indexer.reports.ranking import precision_at_k
from indexer.search.searcher import Searcher
from training.data.datasets import open_dataset
from training.data.examples import Example


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("data")
    parser.add_argument("--name", default="look_alikes")
    arguments = parser.parse_args()
    index, embedder, searcher = open_for_queries(arguments.index, arguments.model)
    examples = open_dataset(arguments.data).part("all")
    figures = {
        **accuracy(arguments.model, arguments.data),
        "items": index.manifest.num_items,
        "precision_at_6": round(precision_of_look_alikes(examples, embedder, searcher, k=6), 4),
    }
    record(arguments.name, figures)


def precision_of_look_alikes(
    examples: Sequence[Example], embedder: Embedder, searcher: Searcher, *, k: int
) -> float:
    """Precision at k by label, the query's own item left out."""
    answers = answer([example.source for example in examples], embedder, searcher, k=k + 1)
    matches = [
        without_itself(found.matches, example, k)
        for found, example in zip(answers, examples, strict=True)
    ]
    return precision_at_k(matches, [example.label for example in examples])


if __name__ == "__main__":
    main()
