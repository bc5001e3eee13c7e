"""`lookalike report`: measure how good the answers on a collection are, and what would help."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Rows
from indexer.embedder import Embedder
from indexer.reports.collection.accuracies import best_method, measure_parts, network_alone
from indexer.reports.collection.advice import advise
from indexer.reports.collection.answers import NUM_NEAREST, LeftOutAnswers, answer_left_out
from indexer.reports.collection.confusions import confused_pairs, confusion_matrix, label_figures
from indexer.reports.collection.cross_validation import NUM_FOLDS
from indexer.reports.collection.findings import (
    CollectionReport,
    ItemName,
    SuspectedItem,
    UncertainItem,
)
from indexer.reports.collection.mislabelled import NUM_COUNTED, find_mislabelled, neighbour_counts
from indexer.reports.collection.new_images import (
    NewImages,
    answers_for_new_images,
    embed_new_images,
)
from indexer.reports.collection.page import check_page_file, write_page
from indexer.reports.collection.sample import Sample, take_sample
from indexer.reports.collection.training_images import training_facts
from indexer.reports.distance_choice import store_choice
from indexer.storage.index import Index
from indexer.storage.manifest import MODEL_FOLDER
from training.devices import Device
from training.errors import UserError
from training.network.model import ModelCard, read_card

MAX_LISTED = 1000
"""Maximum number of suspected items that a report lists."""
NUM_UNCERTAIN = 24
MIN_ITEMS_FOR_GAIN = 4
"""A label with fewer items has at most one item in half of the other folds."""


def report_collection(
    directory: Path, out: Path | None = None, *, queries: str | None = None, device: Device = "cpu"
) -> CollectionReport:
    """Measure an index, and write the page to the file `out`; raises UserError.

    It works on the features, labels and thumbnails of the index. The same items give the same
    report. If the index can be changed, it keeps which distance ranks better. `queries` is a data
    set of labelled images that are not in the index. They are embedded on `device`.
    """
    index = Index.open(directory)
    if not len(index.ids):
        raise UserError(
            f"{directory} contains no items; "
            f"to add items, run: lookalike index build DATA --model MODEL --out {directory}"
        )
    if out is not None:
        check_page_file(index, out)  # a mistake is reported before the measurement
    card = read_card(directory / MODEL_FOLDER)
    sample = take_sample(index, card)
    images = None
    if queries is not None:
        embedder = Embedder(directory / MODEL_FOLDER, card=card, device=device)
        images = embed_new_images(queries, index, sample, embedder)
    answers = answer_left_out(index, sample)
    report = _report(index, card, sample, answers, images, queries)
    store_choice(directory, report.precision_at_nearest, k=report.num_nearest, commit=report.commit)
    if out is not None:
        write_page(index, report, out)
    return report


def _report(
    index: Index,
    card: ModelCard,
    sample: Sample,
    answers: LeftOutAnswers | None,
    images: NewImages | None,
    queries: str | None,
) -> CollectionReport:
    if answers is None:
        parts = network_alone(card, sample.names)
    else:
        asked = None
        if images is not None:
            asked = answers_for_new_images(
                index, card, sample, images, answers.probe, answers.metric, answers.votes.num_voters
            )
        parts = measure_parts(card, sample, answers.folds, answers.probe, answers.votes, asked)
    counts = index.labels()
    report = CollectionReport(
        index=str(index.directory),
        model=index.manifest.model_id,
        commit=index.manifest.commit,
        num_items=len(index.ids),
        num_labelled=sample.num_labelled,
        num_labels=len(counts),
        num_copies=sample.num_copies,
        num_labels_left_out=sample.num_labels_left_out,
        num_sampled=len(sample.rows),
        num_judged=0 if answers is None else int((answers.folds >= 0).sum()),
        queries=queries,
        trained_on=sample.trained_on,
        training=training_facts(card, [*counts]),
        num_left_out_queries=0 if images is None else images.num_left_out,
        accuracies=parts,
        best=best_method(parts),
        num_folds=NUM_FOLDS,
        num_nearest=min(NUM_NEAREST, max(len(sample.rows) - 1, 0)),
        num_neighbours=min(NUM_COUNTED, max(len(sample.rows) - 1, 0)),
        labels=label_figures(counts, (), None, {}),
        conflicts=[[_name_row(index, row) for row in group] for group in sample.conflicts],
    )
    if answers is not None:
        report = replace(report, **_findings(index, sample, answers, counts))
    return replace(report, advice=advise(report, card))


def _findings(
    index: Index, sample: Sample, answers: LeftOutAnswers, counts: dict[str, int]
) -> dict[str, Any]:
    """The fields of the report that need answers."""
    labels, names, is_judged = sample.labels, sample.names, answers.folds >= 0
    probabilities = answers.probe.probabilities
    probe_answers = np.where(is_judged, np.nan_to_num(probabilities).argmax(axis=1), -1)
    confusion = confusion_matrix(labels, probe_answers, is_judged, len(names))
    suspected = _suspected(index, sample, answers)
    suspected_ids = {one.item.id for one in suspected}
    return {
        "num_voters": answers.votes.num_voters,
        "gain_of_doubling": _gain_of_doubling(labels, probe_answers, answers),
        "precision_at_nearest": answers.precisions,
        "better_metric": answers.metric,
        "labels": label_figures(counts, names, confusion, answers.label_precisions),
        "confusion_labels": list(names),
        "confusion": confusion.tolist(),
        "confused_pairs": confused_pairs(
            labels,
            probe_answers,
            np.nan_to_num(probabilities).max(axis=1),
            confusion,
            names,
            lambda position: _name_row(index, int(sample.rows[position])),
        ),
        "num_suspected": len(suspected),
        "suspected": suspected[:MAX_LISTED],
        "uncertain": _uncertain(index, sample, answers, suspected_ids),
    }


def _gain_of_doubling(labels: Rows, probe_answers: Rows, answers: LeftOutAnswers) -> float | None:
    """Top-1 minus top-1 with half of the items, for labels with enough items."""
    is_counted = np.bincount(labels)[labels] >= MIN_ITEMS_FOR_GAIN
    if not is_counted.any():
        return None
    is_right = probe_answers == labels
    return float(is_right[is_counted].mean() - answers.probe.is_right_with_half[is_counted].mean())


def _suspected(index: Index, sample: Sample, answers: LeftOutAnswers) -> list[SuspectedItem]:
    """The items whose label looks wrong, the most suspicious first."""
    labels, names, probabilities = sample.labels, sample.names, answers.probe.probabilities
    nearest = answers.neighbour_labels[answers.metric]
    suspicion = find_mislabelled(labels, probabilities, nearest)
    order = np.argsort(-suspicion.scores, kind="stable")
    counts = neighbour_counts(nearest, len(names))
    return [
        SuspectedItem(
            item=_name_row(index, int(sample.rows[position])),
            suggestion=names[suggestion],
            label_probability=float(probabilities[position, labels[position]]),
            suggestion_probability=float(probabilities[position, suggestion]),
            num_label_neighbours=int(counts[position, labels[position]]),
            num_suggestion_neighbours=int(counts[position, suggestion]),
        )
        for position in order[suspicion.is_suspected[order]]
        for suggestion in [suspicion.suggestions[position]]
    ]


def _uncertain(
    index: Index, sample: Sample, answers: LeftOutAnswers, left_out: set[int]
) -> list[UncertainItem]:
    """The items whose two likeliest labels are almost equally likely, except those left out."""
    probabilities = answers.probe.probabilities
    best = np.argsort(-np.nan_to_num(probabilities), axis=1, kind="stable")[:, :2]
    shares = np.take_along_axis(probabilities, best, axis=1)
    found: list[UncertainItem] = []
    for position in np.argsort(shares[:, 0] - shares[:, 1], kind="stable"):
        item = _name_row(index, int(sample.rows[position]))
        if len(found) == NUM_UNCERTAIN or answers.folds[position] < 0:
            break
        if item.id not in left_out:
            first, second = best[position]
            found.append(
                UncertainItem(
                    item=item,
                    first=sample.names[first],
                    first_probability=float(shares[position, 0]),
                    second=sample.names[second],
                    second_probability=float(shares[position, 1]),
                )
            )
    return found


def _name_row(index: Index, row: int) -> ItemName:
    path, label = index.text(row)
    return ItemName(id=int(index.records["id"][row]), path=path, label=label or "")
