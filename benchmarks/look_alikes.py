"""How good is a model, and how often do its look-alikes share the query's label?

    python -m benchmarks.look_alikes MODEL INDEX DATA [--name NAME]

DATA contains labelled images. An image that is also in the index does not count as its own
look-alike.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import record
from benchmarks.training_accuracy import accuracy
from indexer.answers import without_itself
from indexer.opening import OpenIndex, open_index
from indexer.reports.ranking import precision_at_k
from training.data.datasets import open_dataset
from training.data.examples import Example


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("index", type=Path)
    parser.add_argument("data")
    parser.add_argument("--name", default="look_alikes")
    arguments = parser.parse_args()
    opened = open_index(arguments.index, arguments.model)
    examples = open_dataset(arguments.data).part("all")
    figures = {
        **accuracy(arguments.model, arguments.data),
        "items": opened.index.manifest.num_items,
        "precision_at_6": round(precision_of_look_alikes(examples, opened, k=6), 4),
    }
    record(arguments.name, figures, model=arguments.model)


def precision_of_look_alikes(examples: Sequence[Example], opened: OpenIndex, *, k: int) -> float:
    """Precision at k by label. The query's own item does not count."""
    answers = opened.similar([example.source for example in examples], k + 1)
    matches = [
        without_itself(answer, example, k)
        for answer, example in zip(answers, examples, strict=True)
    ]
    return precision_at_k(matches, [example.label for example in examples])


if __name__ == "__main__":
    main()
