"""Which items are the same picture twice: byte for byte, or resized, compressed again, brightened or slightly cropped.

The features propose and the thumbnails decide: a network of ten classes lays different photographs of a class side by side.
A pair's thumbnails are laid over each other as well as a small stretch and shift allow (Lucas and Kanade 1981, an axis at a
time), and must then agree as a whole and in every part. benchmarks/duplicates.py measured where the two kinds of pairs part.
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

from indexer.array_types import Floats
from indexer.storage.index import Index, Item
from training.data.images import Pixels
from training.progress import Bar

Ids = npt.NDArray[np.int64]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in shares of the picture's width and height."""

SAME_PICTURE = 0.85
NUM_NEIGHBOURS = 10
COARSE_PX, FINE_PX, CELL_PX = 16, 48, 8
STEPS_PX = (8, 16, 16, 16, 32, 48)
"""The sides of the squares that each step of the alignment compares."""
MIN_CORRELATION = 0.6
"""Of the coarse squares as they are. Below it no alignment is tried; of 3,000 pairs of one picture the least had 0.66."""
MAX_COLOUR_SHIFT = 48
"""Between the mean colours, of 255: brightness may change by a fifth, a blue shirt is not the red one."""
MIN_OVERLAP = 0.85
"""The least share of a side that an alignment may keep."""
MAX_STEP = 0.08
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
QUERIES_PER_BLOCK, ROWS_PER_BLOCK = 4096, 8192


@dataclass(frozen=True)
class Member:
    """An item of a group; `similarity` to the group's first, in [0, 1]; `identical_to` is the first of the group with the same bytes."""

    item: Item
    similarity: float
    identical_to: int | None = None


@dataclass(frozen=True)
class Group:
    """Items that are one picture, the one with the most pixels first; "identical" where all have the same bytes."""

    kind: Literal["identical", "near"]
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Duplicates:
    """The groups of an index, the largest first; thumbnails that could not be read are compared by their bytes' hash only."""

    groups: tuple[Group, ...]
    num_items: int
    num_unreadable: int

    @property
    def num_images(self) -> int:
        """How many items are in a group."""
        return sum(len(group.members) for group in self.groups)

    @property
    def num_identical(self) -> int:
        """How many items repeat another's bytes: what could go without losing a single byte."""
        return sum(
            member.identical_to is not None for group in self.groups for member in group.members
        )


def find_duplicates(
    index: Index, *, threshold: float = SAME_PICTURE, is_shown: bool = True
) -> Duplicates:
    """Groups the items that are one picture. Every member agrees with its group's first, so that a group cannot drift from picture to
    picture; where only two later members of a group agree, that pair makes a group of its own."""
    ids = [int(id) for id in index.ids]
    copies: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(index.items_of(ids).values(), key=_by_worth):
        copies[item.sha256].append(item)
    firsts = {items[0].id: items[0] for items in copies.values()}
    pictures = Pictures(index)
    is_first = np.isin(index.ids, list(firsts))
    rows, ids_of_rows = index.rows[is_first], index.ids[is_first]
    with Bar("Thumbnails", len(rows), is_shown=is_shown) as bar:
        coarse, is_readable = _coarse_squares(pictures, ids_of_rows, bar)
    with Bar("Neighbours", len(rows), is_shown=is_shown) as bar:
        pairs = nearest_pairs(index.features, rows, NUM_NEIGHBOURS, bar)
    pairs = pairs[is_readable[pairs].all(1) & resembles(coarse, pairs)]
    with Bar("Pairs", len(pairs), "pairs", is_shown=is_shown) as bar:
        same = []
        for pair in ids_of_rows[pairs]:
            one, other = sorted((firsts[int(id)] for id in pair), key=_by_worth)
            if pictures.similarity(one.id, other.id) >= threshold:
                same.append((one.id, other.id))
            bar.advance()
    groups = [
        _group(members, copies)
        for component in connected(same)
        for members in _around_firsts([firsts[id] for id in component], pictures, threshold)
    ]
    in_near = {member.item.sha256 for group in groups for member in group.members}
    groups += [
        _group([(items[0], 1.0)], copies)
        for sha, items in copies.items()
        if len(items) > 1 and sha not in in_near
    ]
    groups.sort(
        key=lambda group: (
            -len(group.members),
            group.members[0].item.path,
            group.members[0].item.id,
        )
    )
    return Duplicates(tuple(groups), len(ids), int((~is_readable).sum()))


def nearest_pairs(features: Floats, rows: Ids, k: int, bar: Bar | None = None) -> Ids:
    """Each row with its `k` nearest others by exact Euclidean search; places in `rows`, (pairs, 2) int64, each pair once, ascending.

    All against all, a block of queries and a block of rows at a time: some 300 MB at most, whatever the size of the index.
    """
    num_rows, k = len(rows), min(k + 1, len(rows))
    found: list[Ids] = [np.empty((0, 2), np.int64)]
    for start in range(0, num_rows, QUERIES_PER_BLOCK):
        queries = np.ascontiguousarray(features[rows[start : start + QUERIES_PER_BLOCK]])
        squared, places = (
            np.empty((len(queries), 0), np.float32),
            np.empty((len(queries), 0), np.int64),
        )
        for first in range(0, num_rows, ROWS_PER_BLOCK):
            block = np.ascontiguousarray(features[rows[first : first + ROWS_PER_BLOCK]])
            new_squared, new_places = faiss.knn(queries, block, min(k, len(block)))
            squared, places = (
                np.hstack([squared, new_squared]),
                np.hstack([places, new_places + first]),
            )
            order = np.argsort(squared, axis=1, kind="stable")[:, :k]
            squared, places = (
                np.take_along_axis(squared, order, 1),
                np.take_along_axis(places, order, 1),
            )
        own = np.repeat(np.arange(start, start + len(queries)), places.shape[1])
        found.append(np.sort(np.stack([own, places.ravel()], 1), axis=1))
        if bar:
            bar.advance(len(queries))
    pairs: Ids = np.unique(np.concatenate(found), axis=0)
    kept: Ids = pairs[pairs[:, 0] != pairs[:, 1]]
    return kept


def resembles(squares: Pixels | Floats, pairs: Ids) -> npt.NDArray[np.bool_]:
    """Which pairs of `squares`, (n, S, S, 3) in 0 to 255, are worth a closer look: alike in mean colour and in the coarse, (n,) bool."""
    answers = [np.empty(0, np.bool_)]
    for start in range(0, len(pairs), 4096):
        one, other = (
            squares[places].astype(np.float32) for places in pairs[start : start + 4096].T
        )
        shift = np.abs(one.mean((1, 2)) - other.mean((1, 2))).max(1)
        answers.append((shift <= MAX_COLOUR_SHIFT) & (_correlation(one, other) >= MIN_CORRELATION))
    return np.concatenate(answers)


def similarity(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures are the same one, in [0, 1], whatever their size and brightness and a crop of some per cent.

    The correlation of the aligned (48, 48, 3) squares, times the mean of that of their 36 cells of 8 x 8: the first sees the whole,
    the second the details, which two shirts on one floor do not share. 0 where they do not even resemble each other.
    """
    boxes = (WHOLE, WHOLE)
    if not resembles(
        np.stack([_square(picture, WHOLE, COARSE_PX) for picture in (one, other)]),
        np.array([[0, 1]]),
    )[0]:
        return 0.0
    squares = _square(one, WHOLE, FINE_PX), _square(other, WHOLE, FINE_PX)
    best = _correlation(*squares)
    for side in STEPS_PX:
        motion = _motion(_square(one, boxes[0], side), _square(other, boxes[1], side))
        if motion is None:
            break
        boxes = _moved(*boxes, motion)
        if min(box[axis + 2] - box[axis] for box in boxes for axis in (0, 1)) < MIN_OVERLAP:
            break
        moved = _square(one, boxes[0], FINE_PX), _square(other, boxes[1], FINE_PX)
        if (found := _correlation(*moved)) > best:
            best, squares = found, moved
    details = _correlation(*(_cells(square) for square in squares), noise=10.0).mean()
    return float(np.clip(best, 0, 1) * np.clip(details, 0, 1))


def connected(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The connected components of these edges."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = node = parent[above]  # each walk halves the next
        return node

    for one, other in pairs:
        parent[root(one)] = root(other)
    components: dict[int, list[int]] = defaultdict(list)
    for node in parent:
        components[root(node)].append(node)
    return list(components.values())


class Pictures:
    """The thumbnails of an index, decoded; the latest are kept."""

    def __init__(self, index: Index):
        self._index = index
        self.picture = lru_cache(maxsize=4096)(self._picture)
        self.similarity = lru_cache(maxsize=None)(self._similarity)

    def _picture(self, id: int) -> Image.Image | None:
        """An item's thumbnail in RGB; None where it is damaged."""
        try:
            with Image.open(
                io.BytesIO(self._index.thumbnail(id) or b""), formats=["JPEG"]
            ) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError):  # what Pillow raises on damage
            return None

    def _similarity(self, one: int, other: int) -> float:
        pictures = self.picture(one), self.picture(other)
        return (
            0.0
            if pictures[0] is None or pictures[1] is None
            else similarity(pictures[0], pictures[1])
        )


def _by_worth(item: Item) -> tuple[int, str, int]:
    """Sorts first what one would keep: the most pixels, then by path."""
    return -item.width * item.height, item.path, item.id


def _group(members: Sequence[tuple[Item, float]], copies: dict[str, list[Item]]) -> Group:
    """A group of these pictures, each with its similarity to the first, and their identical copies."""
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
    """Splits a component into groups whose members all agree with the first; what is left alone is left out."""
    groups, left = [], sorted(items, key=_by_worth)
    while len(left) > 1:
        first, *others = left
        scored = [(item, pictures.similarity(first.id, item.id)) for item in others]
        agreeing = [(item, score) for item, score in scored if score >= threshold]
        if agreeing:
            groups.append([(first, 1.0), *agreeing])
        left = [item for item, score in scored if score < threshold]
    return groups


def _coarse_squares(pictures: Pictures, ids: Ids, bar: Bar) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """The thumbnails as (n, 16, 16, 3) uint8, and which of them could be read, (n,) bool."""
    squares, is_readable = (
        np.zeros((len(ids), COARSE_PX, COARSE_PX, 3), np.uint8),
        np.zeros(len(ids), np.bool_),
    )
    for place, id in enumerate(ids):
        if (picture := pictures.picture(int(id))) is not None:
            squares[place], is_readable[place] = _square(picture, WHOLE, COARSE_PX), True
        bar.advance()
    return squares, is_readable


def _square(picture: Image.Image, box: Box, side: int) -> Floats:
    """The box of the picture, squeezed into (side, side, 3) float32."""
    left, top, right, bottom = np.multiply(box, (*picture.size, *picture.size)).tolist()
    return np.asarray(
        picture.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom)),
        np.float32,
    )


def _cells(square: Floats) -> Floats:
    """(S, S, 3) cut into (cells, 8, 8, 3)."""
    per_side = len(square) // CELL_PX
    return (
        square.reshape(per_side, CELL_PX, per_side, CELL_PX, 3)
        .swapaxes(1, 2)
        .reshape(-1, CELL_PX, CELL_PX, 3)
    )


def _correlation(one: Floats, other: Floats, *, noise: float = 4.0) -> Floats:
    """Of (..., S, S, 3) over pixels and channels, each channel's mean taken off; `noise` is the variance below which all is alike."""
    one, other = _centred(one), _centred(other)
    axes = (-3, -2, -1)
    spread = np.sqrt((one * one).mean(axes) * (other * other).mean(axes))
    return np.asarray(((one * other).mean(axes) + noise) / (spread + noise), np.float32)


def _centred(squares: Floats) -> Floats:
    centred: Floats = squares - squares.mean((-3, -2), keepdims=True)
    return centred


def _motion(one: Floats, other: Floats) -> Floats | None:
    """The shift and stretch (x shift, x stretch, y shift, y stretch), in shares of the side, that bring `one` nearest to `other`, to first
    order and with the contrast free; None where they have nothing in common."""
    side = len(one)
    place = ((np.arange(side) + 0.5) / side).astype(np.float32)
    by_y, by_x = (
        np.asarray(gradient, np.float32) * side for gradient in np.gradient(one, axis=(0, 1))
    )
    causes: list[Floats] = [
        one,
        by_x,
        by_x * place[None, :, None],
        by_y,
        by_y * place[:, None, None],
    ]
    matrix = np.stack([_centred(cause).ravel() for cause in causes], 1)
    normal = matrix.T @ matrix
    normal += np.diag(
        1e-3 * np.diag(normal) + 1e-3
    )  # a picture of stripes says nothing about motion along them
    contrast, *motion = np.linalg.solve(normal, matrix.T @ _centred(other).ravel())
    return (
        np.clip(np.array(motion) / contrast, -MAX_STEP, MAX_STEP).astype(np.float32)
        if contrast > 0.2
        else None
    )


def _moved(one: Box, other: Box, motion: Floats) -> tuple[Box, Box]:
    """Both boxes after a motion between them, cut to what both pictures show."""
    moved_one, moved_other = list(one), list(other)
    for axis in (0, 1):
        low, high = axis, axis + 2
        shift, stretch = motion[2 * axis : 2 * axis + 2].tolist()
        scale = (one[high] - one[low]) * (1 + stretch) / (other[high] - other[low])
        start = one[low] + (one[high] - one[low]) * shift - scale * other[low]
        ends = max(0.0, start), min(1.0, start + scale)  # where `other`'s edges lie in `one`
        moved_one[low], moved_one[high] = ends
        moved_other[low], moved_other[high] = (
            float(np.clip((end - start) / scale, 0, 1)) for end in ends
        )
    return (moved_one[0], moved_one[1], moved_one[2], moved_one[3]), (
        moved_other[0],
        moved_other[1],
        moved_other[2],
        moved_other[3],
    )
