"""Give advice in plain words: the changes that would help most.

Each piece of advice follows from one rule and states its reason. The advice is sorted by the number
of mistakes or images that it concerns.
"""

from collections.abc import Iterator

from indexer.reports.collection.accuracies import top1_of
from indexer.reports.collection.findings import Advice, CollectionReport, Method
from indexer.reports.collection.text import counted, quoted
from training.network.model import ModelCard

MIN_GAIN = 0.02
"""More images are advised if doubling them improved top-1 by at least this."""
MIN_SHARE_OF_MISTAKES = 0.15
"""A pair of labels is named if it makes up at least this share of all mistakes."""
MIN_MISTAKES = 3
"""A pair of labels with fewer mistakes is not named."""
MIN_LEAD = 0.02
"""The probe is advised if its top-1 is higher than that of the network by at least this."""
GOOD_TOP1 = 0.95
"""Another network is not advised if top-1 is at least this."""
MANY_TRAINING_IMAGES = 100_000
"""A network that was trained on fewer images gains from pre-trained weights."""
MAX_NAMED_LABELS = 5


def advise(report: CollectionReport, card: ModelCard) -> list[Advice]:
    """The advice of all rules that apply. There is always at least one."""
    if not report.num_judged:
        return [_advice_without_answers(report)]
    found = [
        *_wrong_labels(report),
        *_confused_pairs(report),
        *_small_labels(report),
        *_more_images(report),
        *_other_network(report, card),
        *_other_method(report),
    ]
    if not found:
        found = [Advice(text="Nothing stands out: no rule found a weakness.", num_mistakes=0)]
    return sorted(found, key=lambda advice: -advice.num_mistakes)


def _advice_without_answers(report: CollectionReport) -> Advice:
    if not report.num_labelled:
        text = (
            "The items have no labels, so no answer can be right or wrong. Put the images into one "
            "folder per label, or write a CSV (path,label), and run: lookalike index build. "
            "Look-alikes, duplicates and the map work without labels."
        )
    elif report.num_labels == 1:
        text = (
            "All labelled items have the same label, so there is nothing to tell apart. "
            "Add images with other labels."
        )
    else:
        text = (
            "Each label has only one image, so no label can be predicted from other images. "
            "Add at least one more image per label; ten or more are better."
        )
    return Advice(text=text, num_mistakes=report.num_items)


def _wrong_labels(report: CollectionReport) -> Iterator[Advice]:
    if report.num_suspected:
        yield Advice(
            text=f"Check {counted(report.num_suspected, 'label')}: the probe and the nearest "
            "images both find them very unlikely. Begin with the first ones. An unusual image "
            "can look like this too.",
            num_mistakes=report.num_suspected,
        )
    if report.conflicts:
        yield Advice(
            text=f"{counted(len(report.conflicts), 'image')} can be found more than once with "
            "different labels. Keep one copy of each, with the right label.",
            num_mistakes=len(report.conflicts),
        )


def _confused_pairs(report: CollectionReport) -> Iterator[Advice]:
    num_mistakes = _num_mistakes(report)
    for pair in report.confused_pairs[:2]:
        if pair.num_mistakes >= max(MIN_MISTAKES, MIN_SHARE_OF_MISTAKES * num_mistakes):
            yield Advice(
                text=f"Images of {quoted(pair.label)} are taken for {quoted(pair.answer)} "
                f"{counted(pair.num_mistakes, 'time')}, out of {num_mistakes:,} mistakes in all. "
                "Add images that show the difference, or join the two labels if they mean the "
                "same.",
                num_mistakes=pair.num_mistakes,
            )


def _small_labels(report: CollectionReport) -> Iterator[Advice]:
    small = [figures for figures in report.labels if figures.is_small]
    if small:
        names = ", ".join(
            f"{quoted(figures.label)} ({figures.num_items:,})"
            for figures in small[:MAX_NAMED_LABELS]
        )
        more = (
            f" and {len(small) - MAX_NAMED_LABELS:,} more" if len(small) > MAX_NAMED_LABELS else ""
        )
        yield Advice(
            text=f"Add images of {counted(len(small), 'label')} with too few of them: "
            f"{names}{more}.",
            num_mistakes=round(
                sum((1 - (figures.recall or 0)) * figures.num_items for figures in small)
            ),
        )


def _more_images(report: CollectionReport) -> Iterator[Advice]:
    gain = report.gain_of_doubling
    if gain is not None and gain >= MIN_GAIN:
        yield Advice(
            text=f"Add more images of all labels. With twice as many images, the probe names "
            f"{gain:.1%} more of the images right, measured from half of them to all of them. "
            "The next doubling usually brings less.",
            num_mistakes=round(gain * report.num_judged),
        )


def _other_network(report: CollectionReport, card: ModelCard) -> Iterator[Advice]:
    part, best = report.accuracies[0], report.best
    top1 = top1_of(part, best) if best else None
    num_train = int(card.data.get("num_train", MANY_TRAINING_IMAGES))
    is_pretrained = bool(card.data.get("init"))
    if top1 and top1.value < GOOD_TOP1 and num_train < MANY_TRAINING_IMAGES and not is_pretrained:
        yield Advice(
            text=f"Start from a network that has seen more. This one was trained on {num_train:,} "
            "images from random weights. To start from another network, run: "
            "lookalike demo DATA --init imagenet --workdir NEW, "
            "or lookalike train DATA --init MODEL",
            num_mistakes=round((1 - top1.value) * part.num_images),
        )


def _other_method(report: CollectionReport) -> Iterator[Advice]:
    part = report.accuracies[0]
    if part.network is None:
        return
    others: list[Method] = ["probe", "vote"]
    for method in others:
        share = top1_of(part, method)
        if method == report.best and share and share.value - part.network.value >= MIN_LEAD:
            how = "lookalike classify --by items" if method == "probe" else "lookalike search"
            yield Advice(
                text=f"Name images with the {method} instead of the network's classes: it is right "
                f"for {share.value:.1%}, and the network for {part.network.value:.1%}. Use: {how}",
                num_mistakes=round((share.value - part.network.value) * part.num_images),
            )


def _num_mistakes(report: CollectionReport) -> int:
    return sum(
        count
        for line, counts in enumerate(report.confusion)
        for column, count in enumerate(counts)
        if line != column
    )
