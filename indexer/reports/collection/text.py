"""The report on a collection in words, for the terminal and the page."""

import shlex

from indexer.metrics import METRICS
from indexer.reports.collection.accuracies import top1_of
from indexer.reports.collection.findings import (
    METHODS,
    Accuracies,
    CollectionReport,
    Method,
    Share,
)
from indexer.reports.collection.mislabelled import MAX_NEIGHBOUR_SHARE, MAX_PROBABILITY
from indexer.reports.distance_choice import METRIC_NAMES, describe_choice
from training.naming import one_line

MAX_NAME_LENGTH = 60
"""Maximum number of characters of a label in a sentence."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 label`, `2 labels`. `plural` is for nouns without a simple s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or noun + 's'}"


def quoted(name: str) -> str:
    """A label in quotation marks, on one line, cut off if it is long."""
    line = one_line(name)
    return f'"{line if len(line) <= MAX_NAME_LENGTH else line[:MAX_NAME_LENGTH] + "..."}"'


def percent(share: Share | float | None) -> str:
    """A share in per cent. A `Share` has its 95 % interval. None gives a dash."""
    if share is None:
        return "-"
    if isinstance(share, Share):
        return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
    return f"{share:.1%}"


def describe_content(report: CollectionReport) -> str:
    """A sentence on what the index holds."""
    text = f"{counted(report.num_items, 'item')}, {counted(report.num_labels, 'label')}"
    if num_unlabelled := report.num_items - report.num_labelled:
        text += f", {counted(num_unlabelled, 'item')} without a label"
    if report.num_copies:
        text += f", {counted(report.num_copies, 'copy', 'copies')} left out"
    return f"{text}."


def describe_part(report: CollectionReport, accuracies: Accuracies) -> str:
    """The images that accuracies were measured on."""
    images = counted(accuracies.num_images, "image")
    if accuracies.part == "queries":
        return f"{images} of {report.queries} that are not in the index"
    if accuracies.part == "held-out":
        return f"{images} of the index that training held out"
    if accuracies.part == "network":
        return f"{images} that were held out when the network was trained"
    return f"{images} of the index"


def describe_method(report: CollectionReport, method: Method) -> str:
    """The name of a method in a table."""
    if method == "vote":
        if report.num_voters is None or report.better_metric is None:
            return "vote of the nearest neighbours"
        metric = METRIC_NAMES[report.better_metric]
        return f"vote of the {report.num_voters} nearest, {metric}"
    return {"network": "network itself", "probe": "probe on its features"}[method]


def describe_best(report: CollectionReport) -> str | None:
    """A sentence that names the best method. It is None if nothing was measured."""
    if report.best is None:
        return None
    part = report.accuracies[0]
    share = top1_of(part, report.best)
    assert share is not None
    method = {
        "network": "The network itself",
        "probe": "The probe",
        "vote": "The neighbours' vote",
    }[report.best]
    return (
        f"{method} is best: right for {share.value:.1%} of {describe_part(report, part)}; "
        f"chance is {percent(part.chance)}."
    )


def describe_metric(report: CollectionReport) -> str | None:
    """A sentence that names the better distance. It is None if nothing was measured."""
    if not report.precision_at_nearest:
        return None
    return describe_choice(
        {metric: report.precision_at_nearest.get(metric) for metric in METRICS},
        report.num_nearest,
    )


def summary_lines(report: CollectionReport) -> list[str]:
    """The report in a few lines for the terminal."""
    lines = [f"{report.index}: {describe_content(report)}"]
    for accuracies in report.accuracies:
        lines.append(f"top-1 on {describe_part(report, accuracies)}:")
        lines += [
            f"{share.value:>8.1%}  {describe_method(report, method)}"
            for method in METHODS
            if (share := top1_of(accuracies, method))
        ]
        if accuracies.chance is not None:
            lines.append(f"{accuracies.chance:>8.1%}  chance: always the most frequent label")
    lines += [line for line in (describe_best(report), describe_metric(report)) if line]
    if report.num_judged:
        lines.append(f"Labels that look wrong: {report.num_suspected:,}")
    lines.append("What would help most:")
    lines += [f"  {number}. {advice.text}" for number, advice in enumerate(report.advice, 1)]
    return lines


def measurement_notes(report: CollectionReport) -> list[str]:
    """How the figures were measured, and what they do not say."""
    notes = [
        f"Index {report.index}, commit {report.commit}, model {report.model[:12]}.",
        _describe_commands(report),
    ]
    if not report.num_judged:
        return notes
    notes += [_describe_sample(report), describe_training(report)]
    notes += [
        f"The probe was fitted {report.num_folds} times, each time without a fifth of the items, "
        "and asked about that fifth. The neighbours of an item vote without the item itself. The "
        "number of voters for a fifth is the one that is right most often for the other items.",
        f"A label looks wrong if the probe gives it less than {MAX_PROBABILITY:.0%} and at most "
        f"{MAX_NEIGHBOUR_SHARE:.0%} of the {report.num_neighbours} nearest items have it. The "
        "order is by the product of both opinions.",
        "A 95 % interval says how far a share can be off by chance, because the number of images "
        "is limited. Images that are nearly identical count as different images; to find "
        "them, run: lookalike index duplicates",
    ]
    if report.gain_of_doubling is not None:
        notes.append(
            f"With half of the items, top-1 of the probe is {report.gain_of_doubling:.1%} lower "
            "than with all of them."
        )
    if report.num_left_out_queries:
        notes.append(
            f"{counted(report.num_left_out_queries, 'query', 'queries')} left "
            "out: they cannot be read, are in the index, or have a label that the index lacks."
        )
    return notes


def _describe_sample(report: CollectionReport) -> str:
    num_different = report.num_labelled - report.num_copies
    sample = (
        f"a random sample of {report.num_sampled:,} of {num_different:,}"
        if report.num_sampled < num_different
        else f"all {report.num_sampled:,}"
    )
    text = f"Measured with {sample} labelled items with different bytes."
    if report.num_labels_left_out:
        text += f" The {report.num_labels_left_out:,} least frequent labels are left out."
    if num_alone := report.num_sampled - report.num_judged:
        text += (
            f" {counted(num_alone, 'item')} cannot be judged, because no other item has the label."
        )
    return text


def _describe_commands(report: CollectionReport) -> str:
    index = shlex.quote(report.index)
    queries = f" --queries {shlex.quote(report.queries)}" if report.queries else ""
    return (
        "This page needs no other file. To make it again, run: "
        f"lookalike report {index}{queries} --out FILE.html. To search the images, run: "
        f"lookalike serve {index}"
    )


def describe_training(report: CollectionReport) -> str:
    """State what is known about the training images, and what follows for the figures.

    Items are called held out only if `find_held_out` knows that they are.
    """
    start = _describe_start(report)
    data = "its training data"
    if report.training.data:
        data += f" {quoted(report.training.data)}"
    if report.trained_on == "some":
        fair = "" if start else "The figures on the held-out items are fair."
        sentences = [
            "The network was trained on some of these items: the labels and the numbers of images "
            f"are those of {data}, and the paths say which items training held out (if no file was "
            "renamed since then). The features of the others show their labels more clearly than "
            "those of new images, so the figures on all items are too high for new images.",
            fair or start,
            "Wrong labels that the network learned by heart are harder to find.",
        ]
    elif report.trained_on == "none":
        sentences = [
            "Training held out all of these items: the labels, the number of images and the folder "
            f"in the paths are those of the held-out images of {data}.",
            start or "So the figures are fair.",
        ]
    elif report.trained_on == "all":
        sentences = [
            "The network was trained on all of these items: the labels, the number of images and "
            f"the folder in the paths are those of the training images of {data}. Their features "
            "show their labels more clearly than those of new images, so the figures are too high "
            "for new images.",
            _describe_remedy(report),
        ]
    else:
        sentences = [
            _describe_unknown(report),
            start,
            "If it was trained on some of them, their features show their labels more clearly than "
            "those of new images, and the figures are too high for new images.",
            _describe_remedy(report),
        ]
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_unknown(report: CollectionReport) -> str:
    """The facts about the training data and the classes that the model states."""
    facts = report.training
    name = quoted(facts.data) if facts.data else "unknown data"
    if facts.num_train is None:
        text = f"The network was not trained by Lookalike ({name})."
    else:
        text = f"The network was trained on {counted(facts.num_train, 'image')} of {name}."
    num_shared, num_labels = facts.num_shared_labels, report.num_labels
    if num_shared == num_labels:
        classes = "All labels are classes of the network"
    elif num_shared:
        classes = f"{num_shared:,} of the {num_labels:,} labels are classes of the network"
    else:
        classes = "No label is the name of one of its classes, but names can differ"
    return f"{text} {classes}. It is unknown whether it was trained on these items."


def _describe_start(report: CollectionReport) -> str:
    """The consequence of training that started from another network; empty without one."""
    if report.training.init is None:
        return ""
    images = "these items" if report.trained_on == "unknown" else "the held-out items"
    return (
        f"The training started from another network ({report.training.init[:12]}). "
        f"Whether that network was trained on {images} is unknown, so the figures on them can be "
        "too high too."
    )


def _describe_remedy(report: CollectionReport) -> str:
    return "" if report.queries else "To measure with new images, pass --queries DATA."
