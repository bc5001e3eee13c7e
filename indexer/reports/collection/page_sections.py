"""The sections of the page of the report on a collection."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from indexer.reports.collection.accuracies import top1_of
from indexer.reports.collection.confusions import MIN_IMAGES, MIN_SHARE_OF_MEDIAN
from indexer.reports.collection.findings import METHODS, CollectionReport, ItemName, LabelFigures
from indexer.reports.collection.page_style import PICTURE
from indexer.reports.collection.text import (
    counted,
    describe_best,
    describe_method,
    describe_metric,
    describe_part,
    measurement_notes,
    percent,
    quoted,
)
from indexer.reports.distance_choice import METRIC_NAMES
from indexer.storage.index import Index
from training.naming import one_line

MAX_PICTURES = 24
"""Maximum number of suspected items and of uncertain items on the page. All pictures together stay
below 100, about 1 MB."""
MAX_CONFLICTS = 6
"""Maximum number of groups of the same bytes with different labels on the page."""
MAX_CONFLICT_PICTURES = 3
MAX_MATRIX_LABELS = 20
MAX_TABLE_LABELS = 100


@dataclass(frozen=True)
class Section:
    """A section with its heading. If the content is empty, the section is left out."""

    id: str
    title: str
    content: str


def all_sections(index: Index, report: CollectionReport) -> list[Section]:
    """The sections in their order."""
    return [
        Section("advice", "What would help most", _advice(report)),
        Section("accuracy", "How often the answers are right", _accuracies(report)),
        Section("distance", "Which distance ranks better", _paragraph(describe_metric(report))),
        Section("labels", "Labels", _labels(report)),
        Section("confusions", "What is confused with what", _matrix(report)),
        Section("pairs", "The most confused pairs", _pairs(index, report)),
        Section("wrong-labels", "Labels that look wrong", _suspected(index, report)),
        Section("conflicts", "The same image with different labels", _conflicts(index, report)),
        Section("uncertain", "The least certain images", _uncertain(index, report)),
        Section("method", "How this was measured", _notes(report)),
    ]


def _advice(report: CollectionReport) -> str:
    lines = "".join(f"<li>{escape(advice.text)}</li>\n" for advice in report.advice)
    return f"<ol>\n{lines}</ol>"


def _accuracies(report: CollectionReport) -> str:
    tables = []
    for number, accuracies in enumerate(report.accuracies):
        rows = []
        for method in METHODS:
            if share := top1_of(accuracies, method):
                is_best = number == 0 and method == report.best
                name = describe_method(report, method) + (" (best)" if is_best else "")
                rows.append(_bar_row(name, share.value, percent(share), is_best=is_best))
        if accuracies.chance is not None:
            name = "chance: always the most frequent label"
            rows.append(_bar_row(name, accuracies.chance, percent(accuracies.chance)))
        tables.append(
            f"<h3>On {escape(describe_part(report, accuracies))}</h3>\n"
            '<div class="wide"><table>\n<thead><tr><th scope="col">answer by</th>'
            '<th scope="col">top-1 (95 % interval)</th><td></td></tr></thead>\n'
            f"<tbody>\n{''.join(rows)}</tbody>\n</table></div>"
        )
    return _paragraph(describe_best(report)) + "".join(tables)


def _bar_row(name: str, value: float, text: str, *, is_best: bool = False) -> str:
    attribute = ' class="best"' if is_best else ""
    return (
        f'<tr{attribute}><th scope="row">{escape(name)}</th><td>{text}</td>'
        f'<td class="bar"><span style="width: {100 * value:.1f}%"></span></td></tr>\n'
    )


def _labels(report: CollectionReport) -> str:
    if not report.labels:
        return ""

    def key(figures: LabelFigures) -> tuple[bool, float]:
        return not figures.is_small, 2.0 if figures.recall is None else figures.recall

    shown = sorted(report.labels, key=key)[:MAX_TABLE_LABELS]
    rows = "".join(
        f'<tr><th scope="row">{escape(quoted(figures.label)[1:-1])}</th>'
        f"<td>{figures.num_items:,}{' (too few)' if figures.is_small else ''}</td>"
        f"<td>{percent(figures.recall)}</td><td>{percent(figures.precision)}</td>"
        f"<td>{percent(_precision_at_nearest(report, figures))}</td></tr>\n"
        for figures in shown
    )
    small = sum(figures.is_small for figures in report.labels)
    text = (
        f"Labels with too few images: {small or 'none'}. These are labels with fewer than "
        f"{MIN_IMAGES} images, or with fewer than {MIN_SHARE_OF_MEDIAN:.0%} of the median label. "
        "Labels with too few images come first, then those that are recognised worst."
    )
    if len(shown) < len(report.labels):
        text += f" The table shows {len(shown):,} labels; --json prints all."
    if report.better_metric is not None:
        text += (
            f" The last column is the share of the {report.num_nearest} nearest items with the "
            f"same label, by {METRIC_NAMES[report.better_metric]}. A label with fewer than "
            f"{report.num_nearest + 1} images cannot reach 100 %."
        )
    return (
        _paragraph(text) + '<div class="wide"><table>\n<thead><tr><th scope="col">label</th>'
        '<th scope="col">images</th><th scope="col">recognised</th>'
        '<th scope="col">right when answered</th>'
        f'<th scope="col">right among the {report.num_nearest} nearest</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>"
    )


def _precision_at_nearest(report: CollectionReport, figures: LabelFigures) -> float | None:
    """The share of the nearest items with this label, by the better metric."""
    if report.better_metric is None:
        return None
    return figures.precision_at_nearest.get(report.better_metric)


def _matrix(report: CollectionReport) -> str:
    if not report.confusion:
        return ""
    mistakes = [
        sum(line) + sum(other[number] for other in report.confusion) - 2 * line[number]
        for number, line in enumerate(report.confusion)
    ]
    worst = sorted(range(len(mistakes)), key=lambda number: -mistakes[number])
    shown = sorted(worst[:MAX_MATRIX_LABELS])
    names = [escape(quoted(report.confusion_labels[number])[1:-1]) for number in shown]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(_cell(report.confusion[line], line, column) for column in shown)
        + "</tr>\n"
        for name, line in zip(names, shown, strict=True)
    )
    text = "Each line is a label, and each column is an answer of the probe."
    if len(shown) < len(report.confusion):
        text += f" Shown are the {len(shown)} labels with the most mistakes."
    return (
        _paragraph(text)
        + f'<div class="wide"><table class="matrix">\n<thead><tr><td></td>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>"
    )


def _cell(counts: Sequence[int], line: int, column: int) -> str:
    count = counts[column]
    if line == column:
        return f'<td class="right">{count:,}</td>'
    if not count:
        return "<td></td>"
    shade = min(0.12 + 2.5 * count / max(sum(counts), 1), 0.85)
    return f'<td style="background: rgb(var(--wrong) / {shade:.2f})">{count:,}</td>'


def _pairs(index: Index, report: CollectionReport) -> str:
    return "".join(
        f"<h3>{escape(quoted(pair.label))} taken for {escape(quoted(pair.answer))}: "
        f"{pair.num_mistakes:,} of {pair.num_items:,}</h3>\n"
        + _pictures(
            _picture(index, item, f"labelled {quoted(item.label)}", f"answer {quoted(pair.answer)}")
            for item in pair.examples
        )
        for pair in report.confused_pairs
    )


def _suspected(index: Index, report: CollectionReport) -> str:
    if not report.num_judged:
        return ""
    if not report.num_suspected:
        return _paragraph("None: the probe or the neighbours find each label likely enough.")
    shown = report.suspected[:MAX_PICTURES]
    text = (
        f"The probe and the nearest images both find {counted(report.num_suspected, 'label')} very "
        "unlikely. The most suspicious come first. An unusual image with the right label can look "
        "like this too."
    )
    if len(shown) < report.num_suspected:
        text += f" Shown are {len(shown)}; --json lists more."
    pictures = [
        _picture(
            index,
            one.item,
            f"labelled {quoted(one.item.label)}, more like {quoted(one.suggestion)}",
            f"probe {one.label_probability:.0%} against {one.suggestion_probability:.0%}; "
            f"of {report.num_neighbours} neighbours, {one.num_label_neighbours} against "
            f"{one.num_suggestion_neighbours}",
        )
        for one in shown
    ]
    return _paragraph(text) + _pictures(pictures)


def _conflicts(index: Index, report: CollectionReport) -> str:
    if not report.conflicts:
        return ""
    text = f"{counted(len(report.conflicts), 'image')} with the same bytes but different labels."
    if len(report.conflicts) > MAX_CONFLICTS:
        text += f" Shown are {MAX_CONFLICTS}; --json prints all."
    return _paragraph(text) + "".join(
        _pictures(
            _picture(index, item, f"labelled {quoted(item.label)}", "the same bytes")
            for item in group[:MAX_CONFLICT_PICTURES]
        )
        for group in report.conflicts[:MAX_CONFLICTS]
    )


def _uncertain(index: Index, report: CollectionReport) -> str:
    if not report.uncertain:
        return ""
    return _paragraph(
        "The two likeliest labels are almost equally likely. Such images teach most if you add "
        "more of their kind."
    ) + _pictures(
        _picture(
            index,
            one.item,
            f"labelled {quoted(one.item.label)}",
            f"{quoted(one.first)} {one.first_probability:.0%}, "
            f"{quoted(one.second)} {one.second_probability:.0%}",
        )
        for one in report.uncertain[:MAX_PICTURES]
    )


def _notes(report: CollectionReport) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>\n' for note in measurement_notes(report))


def _paragraph(text: str | None) -> str:
    return f"<p>{escape(text)}</p>\n" if text else ""


def _pictures(pictures: Sequence[str] | Iterator[str]) -> str:
    return f'<ul class="pictures">\n{"".join(pictures)}</ul>\n'


def _picture(index: Index, item: ItemName, title: str, details: str) -> str:
    path = escape(one_line(item.path))
    return PICTURE.substitute(
        thumbnail=base64.b64encode(index.thumbnail(item.id) or b"").decode(),
        alt=escape(f"Image of the item {item.id}, {title}"),
        title=escape(title),
        details=escape(details),
        path=path,
    )
