"""`lookalike index encode`, `probe` and `map`: learn from the features of an index."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.commands.options import AsJson, DeviceOption, IndexDirectory
from indexer.commands.printing import format_share, print_json
from indexer.storage.codes import DEFAULT_BITS

if TYPE_CHECKING:
    from indexer.learned.probe import ProbeFacts

app = typer.Typer()


@app.command()
def encode(
    index: IndexDirectory,
    bits: Annotated[
        int, typer.Option(help="Number of bits per code: a multiple of 8 from 16 to 1024.")
    ] = DEFAULT_BITS,
    seed: Annotated[int, typer.Option(min=0, help="The seed of all random numbers.")] = 0,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn binary codes from the features in INDEX, and write one code per item.

    `search --metric hamming` searches by these codes. Items that are added later get their codes
    when they are added. After an interruption, run the same command again to continue.
    """
    from indexer.learned.encode import encode as encode_index

    facts = encode_index(index, num_bits=bits, seed=seed, device=device)
    if as_json:
        print_json(asdict(facts))
        return
    print(
        f"{index} has codes of {facts.num_bits} bits, {facts.num_bits // 8} bytes per image, "
        f"learned from {facts.num_fitted:,} items"
    )


@app.command()
def probe(index: IndexDirectory, as_json: AsJson = False) -> None:
    """Fit a classifier of the items' labels (the probe), and store it in INDEX.

    The command prints the accuracy on held-out items, which are a fifth of all items.

    `classify INDEX IMAGE --by items` and `POST /classify?by=items` use the probe. Run the command
    again after items were added or removed.
    """
    from indexer.learned.probe_fitting import make_probe

    facts = make_probe(index)
    if as_json:
        print_json(asdict(facts))
        return
    chosen = f"{facts.scaling} scaling, C {facts.inverse_penalty:g}"
    print(
        f"{index} keeps a probe of {len(facts.labels):,} labels, "
        f"fitted on {_describe_sample(facts.num_fitted, facts.num_items)} items; {chosen}"
    )
    _print_accuracy(facts)


@app.command("map")
def map_(
    index: IndexDirectory,
    items: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default=False,
            help="Maximum number of items on the map. A larger index is sampled. The default is "
            "20,000, which takes minutes.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a map of the items, with similar items close together (t-SNE).

    The map is stored in INDEX. `lookalike serve` shows it on the page and at `GET /map`. Run the
    command again after items were added.
    """
    from indexer.learned.item_map import MAX_MAPPED_ITEMS, make_map

    facts, files = make_map(index, max_items=MAX_MAPPED_ITEMS if items is None else items)
    if as_json:
        print_json(asdict(facts) | {"files": [str(file) for file in files]})
        return
    print(f"{index} keeps a map of {_describe_sample(facts.num_shown, facts.num_items)} items")
    for file in files:
        print(f"Wrote {file}")


def _print_accuracy(facts: "ProbeFacts") -> None:
    from indexer.learned.probe_fitting import NUM_VOTERS

    if facts.num_unlabelled:
        print(f"items without a label, left out: {facts.num_unlabelled:,}")
    if facts.accuracy is None:
        print(
            "no label has two items with different bytes, so no items could be held out; "
            "the accuracy of the probe is unknown"
        )
        return
    print(
        f"accuracy on {facts.num_held_out:,} held-out items, "
        "after fitting a probe on the other items:"
    )
    print(f"{format_share(facts.accuracy):>8}  the probe")
    for accuracy, distance in ((facts.vote_euclidean, "Euclidean"), (facts.vote_cosine, "cosine")):
        print(f"{format_share(accuracy):>8}  the vote of the {NUM_VOTERS} nearest, {distance}")
    print(f"{format_share(facts.chance):>8}  chance: always the most frequent label")


def _describe_sample(count: int, total: int) -> str:
    return f"a sample of {count:,} of {total:,}" if count < total else f"{total:,}"
