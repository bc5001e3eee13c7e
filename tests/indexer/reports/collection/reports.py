"""A report without figures, and reports with some."""

from typing import Any

from indexer.reports.collection.findings import CollectionReport, TrainingFacts


def made_up_report(**figures: Any) -> CollectionReport:
    """A report on 100 labelled items with 2 labels, with these figures."""
    facts: dict[str, Any] = {
        "index": "photos",
        "model": "0" * 64,
        "commit": 3,
        "num_items": 100,
        "num_labelled": 100,
        "num_labels": 2,
        "num_copies": 0,
        "num_labels_left_out": 0,
        "num_sampled": 100,
        "num_judged": 100,
        "queries": None,
        "trained_on": "unknown",
        "training": TrainingFacts(data="photos", num_train=None, init=None, num_shared_labels=0),
        "num_left_out_queries": 0,
        "accuracies": [],
        "best": None,
        "num_folds": 5,
        "num_nearest": 6,
        "num_neighbours": 25,
        "labels": [],
        "conflicts": [],
    }
    return CollectionReport(**(facts | figures))
