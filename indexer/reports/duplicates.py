"""Groups of items that show the same picture: identical files and changed copies.

A changed copy is resized, recompressed, brightened or cropped. The items with the nearest features
are the candidates. Their thumbnails are then compared, as picture_similarity.py explains. Features
alone are not enough: a network with ten classes gives different photographs of one class almost the
same features.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt
from PIL import Image

from indexer.array_types import Floats, Rows
from indexer.reports.picture_similarity import COARSE_PX, resembles, similarity, square_of
from indexer.search.top_k import merge_nearest
from indexer.storage.index import Index, Item
from training.data.images import Pixels
from training.progress import Bar

SAME_PICTURE = 0.85
"""Minimum similarity of two items that count as the same picture. benchmarks/duplicates.py measures
the effect of this number."""
NUM_NEIGHBOURS = 10
"""Number of nearest items that each item is compared with."""
PAIR_BLOCK_QUERIES = 4096
PAIR_BLOCK_ROWS = 8192
"""Number of queries, and number of rows, whose features are in memory at a time."""
MAX_CACHED_THUMBNAILS = 4096


@dataclass(frozen=True)
class Member:
    """An item of a group."""

    item: Item
    similarity: float
    """Similarity to the group's first item, 0 to 1."""
    identical_to: int | None = None
    """Id of the first item in the group with the same bytes. It is None for that item itself."""


@dataclass(frozen=True)
class Group:
    """Items that show the same picture. The item with the most pixels comes first."""

    kind: Literal["identical", "near"]
    """`identical` if all items have the same bytes, otherwise `near`."""
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Duplicates:
    """The groups of an index. The largest group comes first."""

    groups: tuple[Group, ...]
    num_items: int
    num_unreadable: int
    """Number of thumbnails that could not be read. Their items are compared by the hash of their
    bytes only."""

    @property
    def num_images(self) -> int:
        """Number of items in all groups."""
        return sum(len(group.members) for group in self.groups)

    @property
    def num_identical(self) -> int:
        """Number of items whose bytes repeat those of another item in the group.

        If these items are removed, no picture is lost.
        """
        return sum(
            member.identical_to is not None for group in self.groups for member in group.members
        )


def find_duplicates(
    index: Index, *, threshold: float = SAME_PICTURE, is_shown: bool = True
) -> Duplicates:
    """Group the items that show the same picture.

    Two items match if their similarity is at least `threshold`. Every member of a group matches the
    group's first item. Otherwise a chain of matches could put different pictures into one group.
    Items that match each other but not the first item form their own group. If `is_shown` is true,
    progress bars are shown.
    """
    copies: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(index.items_of(index.ids.tolist()).values(), key=_by_worth):
        copies[item.sha256].append(item)
    firsts = {items[0].id: items[0] for items in copies.values()}
    pictures = Pictures(index)
    same, num_unreadable = _same_pictures(index, firsts, pictures, threshold, is_shown=is_shown)
    groups = [
        _group(members, copies)
        for component in connected(same)
        for members in _around_firsts([firsts[id] for id in component], pictures, threshold)
    ]
    grouped = {member.item.sha256 for group in groups for member in group.members}
    groups += [
        _group([(items[0], 1.0)], copies)
        for sha256, items in copies.items()
        if len(items) > 1 and sha256 not in grouped
    ]
    groups.sort(key=_by_size)
    return Duplicates(tuple(groups), len(index.ids), num_unreadable)


def nearest_pairs(features: Floats, rows: Rows, k: int, bar: Bar | None = None) -> Rows:
    """Pair each row with its `k` nearest other rows, by exact Euclidean search.

    Returns positions in `rows`, (pairs, 2). Each pair occurs once, with the lower position first,
    and the pairs are sorted. Every row is compared with every other row, in blocks. A block needs
    at most 300 MB of memory for any size of the index.
    """
    num_rows, k = len(rows), min(k + 1, len(rows))
    pairs: list[Rows] = [np.empty((0, 2), np.int64)]
    for start in range(0, num_rows, PAIR_BLOCK_QUERIES):
        queries = np.ascontiguousarray(features[rows[start : start + PAIR_BLOCK_QUERIES]])
        best = np.empty((len(queries), 0), np.float32)
        nearest = np.empty((len(queries), 0), np.int64)
        for first in range(0, num_rows, PAIR_BLOCK_ROWS):
            block = np.ascontiguousarray(features[rows[first : first + PAIR_BLOCK_ROWS]])
            squared, positions = faiss.knn(queries, block, min(k, len(block)))
            best, nearest = merge_nearest(best, nearest, squared, positions + first, k)
        own = np.repeat(np.arange(start, start + len(queries)), nearest.shape[1])
        pairs.append(np.sort(np.stack([own, nearest.ravel()], 1), axis=1))
        if bar:
            bar.advance(len(queries))
    distinct = np.unique(np.concatenate(pairs), axis=0)
    others: Rows = distinct[distinct[:, 0] != distinct[:, 1]]
    return others


def connected(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The connected components of a graph with these edges."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]  # path halving makes later walks shorter
        return node

    for one, other in pairs:
        parent[root(one)] = root(other)
    components: dict[int, list[int]] = defaultdict(list)
    for node in parent:
        components[root(node)].append(node)
    return list(components.values())


class Pictures:
    """A cache of the decoded thumbnails of an index and of the similarities between them."""

    def __init__(self, index: Index):
        self._index = index
        self.picture = lru_cache(maxsize=MAX_CACHED_THUMBNAILS)(self._picture)
        """Return the thumbnail of the item with this id, in RGB. Return None if it is damaged."""
        self.similarity = lru_cache(maxsize=None)(self._similarity)
        """Return the similarity of the items with these two ids, 0 to 1."""

    def _picture(self, id: int) -> Image.Image | None:
        thumbnail = io.BytesIO(self._index.thumbnail(id) or b"")
        try:
            with Image.open(thumbnail, formats=["JPEG"]) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
            return None

    def _similarity(self, one: int, other: int) -> float:
        first, second = self.picture(one), self.picture(other)
        return 0.0 if first is None or second is None else similarity(first, second)


def _same_pictures(
    index: Index, firsts: dict[int, Item], pictures: Pictures, threshold: float, *, is_shown: bool
) -> tuple[list[tuple[int, int]], int]:
    """The pairs of items that show the same picture, and the number of unreadable thumbnails.

    `firsts` contains the items to compare, by id. If several items have the same bytes, it contains
    only one of these items.
    """
    is_first = np.isin(index.ids, list(firsts))
    rows, ids = index.rows[is_first], index.ids[is_first]
    with Bar("Thumbnails", len(rows), is_shown=is_shown) as bar:
        coarse, is_readable = _coarse_squares(pictures, ids, bar)
    with Bar("Neighbours", len(rows), is_shown=is_shown) as bar:
        pairs = nearest_pairs(index.features, rows, NUM_NEIGHBOURS, bar)
    pairs = pairs[is_readable[pairs].all(1) & resembles(coarse, pairs)]
    same = []
    with Bar("Pairs", len(pairs), "pairs", is_shown=is_shown) as bar:
        for pair in ids[pairs].tolist():
            one, other = sorted((firsts[id] for id in pair), key=_by_worth)
            if pictures.similarity(one.id, other.id) >= threshold:
                same.append((one.id, other.id))
            bar.advance()
    return same, int((~is_readable).sum())


def _coarse_squares(
    pictures: Pictures, ids: Rows, bar: Bar
) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """The thumbnails of `ids`, reduced to 16 x 16 pixels, (n, 16, 16, 3) uint8.

    The mask (n,) is true for the thumbnails that could be read.
    """
    squares = np.zeros((len(ids), COARSE_PX, COARSE_PX, 3), np.uint8)
    is_readable = np.zeros(len(ids), np.bool_)
    for position, id in enumerate(ids.tolist()):
        if (picture := pictures.picture(id)) is not None:
            squares[position], is_readable[position] = square_of(picture, COARSE_PX), True
        bar.advance()
    return squares, is_readable


def _group(members: Sequence[tuple[Item, float]], copies: dict[str, list[Item]]) -> Group:
    """Make a group of these items and their identical copies.

    `members` contains each item with its similarity to the first item.
    """
    listed = [
        Member(copy, score, identical_to=None if copy.id == item.id else item.id)
        for item, score in members
        for copy in copies[item.sha256]
    ]
    listed.sort(key=lambda member: _by_worth(member.item))
    return Group("near" if len(members) > 1 else "identical", tuple(listed))


def _around_firsts(
    items: Sequence[Item], pictures: Pictures, threshold: float
) -> list[list[tuple[Item, float]]]:
    """Split a connected component into groups in which each member matches the first item.

    An item is left out if it matches no first item.
    """
    groups, left = [], sorted(items, key=_by_worth)
    while len(left) > 1:
        first, *others = left
        scored = [(item, pictures.similarity(first.id, item.id)) for item in others]
        agreeing = [(item, score) for item, score in scored if score >= threshold]
        if agreeing:
            groups.append([(first, 1.0), *agreeing])
        left = [item for item, score in scored if score < threshold]
    return groups


def _by_worth(item: Item) -> tuple[int, str, int]:
    """A sort key. The item with the most pixels comes first, because it is the one to keep.

    Items of the same size are sorted by path.
    """
    return -item.width * item.height, item.path, item.id


def _by_size(group: Group) -> tuple[int, str, int]:
    """A sort key. The largest group comes first.

    Groups of the same size are sorted by the path of their first item.
    """
    first = group.members[0].item
    return -len(group.members), first.path, first.id
