"""The duplicates of an index as an HTML page for people, and as CSV and JSON for programs.

The thumbnails are separate files. The browser loads each one when it comes into view. If the page
itself contained the thumbnails of 5,000 groups, it would have a size of 150 MB.
"""

import csv
import io
from contextlib import suppress
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from indexer.reports.duplicates import Duplicates, Group, Member
from indexer.reports.export import with_cells
from indexer.storage.index import Index
from training.errors import UserError
from training.files import write_atomically
from training.naming import one_line

HTML_FILE, CSV_FILE, THUMBNAIL_FOLDER = "duplicates.html", "duplicates.csv", "thumbnails"
COLUMNS = (
    "group",
    "kind",
    "id",
    "path",
    "label",
    "width",
    "height",
    "sha256",
    "similarity",
    "identical_to",
)

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Duplicates</title>
<style>
:root {
  --background: #f6f4f0; --surface: #fffefb; --line: #e3dfd7; --ink: #22231f;
  --quiet: #6a6a63; --accent: #2f6f6a; --soft: #d9e8e5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --background: #171816; --surface: #20221f; --line: #343732; --ink: #eceae4;
    --quiet: #a3a49c; --accent: #7cc0b8; --soft: #26403d;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 36px 28px; }
body { background: var(--background); color: var(--ink); }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2, p, ul, figure { margin: 0; padding: 0; }
h1 { font-size: 1.7rem; letter-spacing: -0.02em; line-height: 1.2; }
h2 { font-size: 1rem; }
header p { margin-top: 8px; max-width: 90ch; color: var(--quiet); }
section { margin-top: 18px; padding: 16px 18px 18px; background: var(--surface); }
section { border: 1px solid var(--line); border-radius: 14px; }
section { content-visibility: auto; contain-intrinsic-size: auto 330px; }
h2 span { margin-left: 8px; padding: 2px 9px; border-radius: 99px; background: var(--soft); }
h2 span { font-size: 0.82rem; font-weight: 500; color: var(--accent); }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(190px, 45%), 1fr)); }
ul { gap: 18px; margin-top: 12px; list-style: none; }
li { font-size: 0.86rem; overflow-wrap: anywhere; }
li > div { aspect-ratio: 1; overflow: hidden; background: var(--background); }
li > div { border: 1px solid var(--line); border-radius: 8px; }
img { display: block; width: 100%; height: 100%; object-fit: scale-down; }
li p { margin-top: 6px; line-height: 1.35; }
li p + p { margin-top: 2px; color: var(--quiet); }
</style>
</head>
<body>
<header>
<h1>Duplicates</h1>
<p>$summary</p>
<p>The first image of a group has the most pixels. The file $csv_file contains the same list.</p>
</header>
$sections
</body>
</html>
""")

SECTION = Template("""\
<section id="group-$number">
<h2>Group $number<span>$kind</span></h2>
<ul>
$members
</ul>
</section>
""")

MEMBER = Template("""\
<li>
<div><img src="$thumbnail" alt="" loading="lazy"></div>
<p>$path</p>
<p>$facts</p>
<p>$relation</p>
</li>
""")


def write_report(
    index: Index, duplicates: Duplicates, out: Path, *, raw: bool = False
) -> list[Path]:
    """Write duplicates.html, its thumbnails and duplicates.csv into the folder `out`.

    If `raw` is true, the table contains paths and labels as they are, even if they look like
    formulas.

    An earlier report in this folder is replaced. Raises UserError if `out` is the index directory.
    """
    if out.resolve() == index.directory.resolve():
        raise UserError(
            f"the report needs its own directory, got the index {out}; pass another --out"
        )
    (out / THUMBNAIL_FOLDER).mkdir(parents=True, exist_ok=True)
    earlier = _ids_of_report(out / CSV_FILE)
    ids = {member.item.id for group in duplicates.groups for member in group.members}
    for id in ids:
        (out / thumbnail_file(id)).write_bytes(index.thumbnail(id) or b"")
    files = [out / HTML_FILE, out / CSV_FILE]
    write_atomically(files[0], to_html(duplicates).encode("utf-8", errors="replace"))
    write_atomically(
        files[1], to_csv(duplicates, raw=raw).encode("utf-8", errors="surrogateescape")
    )
    for id in earlier - ids:
        (out / thumbnail_file(id)).unlink(missing_ok=True)
    return files


def to_html(duplicates: Duplicates) -> str:
    """The page. Paths and labels are always shown as text, even if they contain HTML."""
    sections = [
        SECTION.substitute(
            number=number,
            kind="identical bytes" if group.kind == "identical" else "near-identical",
            members="".join(_member_html(group, member) for member in group.members),
        )
        for number, group in enumerate(duplicates.groups, 1)
    ]
    return PAGE.substitute(
        summary=escape(summary(duplicates)), csv_file=CSV_FILE, sections="".join(sections)
    )


def to_csv(duplicates: Duplicates, *, raw: bool = False) -> str:
    """The table, with one row per item. `Member` explains `similarity` and `identical_to`.

    A path or label that a spreadsheet would take for a formula begins with an apostrophe, except if
    `raw` is true.
    """
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for number, group in enumerate(duplicates.groups, 1):
        for member in group.members:
            row = asdict(member.item if raw else with_cells(member.item))
            row |= {"group": number, "kind": group.kind, "identical_to": member.identical_to}
            row["similarity"] = f"{member.similarity:.4f}"
            table.writerow([row[column] for column in COLUMNS])
    return out.getvalue()


def to_json(group: Group) -> dict[str, Any]:
    """The group as `--json` prints it."""
    items = []
    for member in group.members:
        scores = {"similarity": round(member.similarity, 4), "identical_to": member.identical_to}
        items.append(asdict(member.item) | scores)
    return {"kind": group.kind, "items": items}


def summary(duplicates: Duplicates) -> str:
    """One or two sentences with the main numbers."""
    all_images = _counted(duplicates.num_items, "image")
    if duplicates.groups:
        groups = _counted(len(duplicates.groups), "group")
        text = (
            f"{groups} with {duplicates.num_images:,} of {all_images}; "
            f"{duplicates.num_identical:,} of them repeat the bytes of another image."
        )
    else:
        text = f"No duplicates among {all_images}."
    if duplicates.num_unreadable:
        thumbnails = _counted(duplicates.num_unreadable, "damaged thumbnail")
        text += f" {thumbnails}; these images are compared by their bytes only."
    return text


def thumbnail_file(id: int) -> str:
    """The path of an item's thumbnail, relative to the page."""
    return f"{THUMBNAIL_FOLDER}/{id}.jpg"


def relation(member: Member, group: Group) -> str:
    """A few words about how an item is related to the other items of its group."""
    first = group.members[0]
    if member.identical_to is not None:
        is_first = member.identical_to == first.item.id
        return "same bytes as the first image" if is_first else "same bytes as another image"
    return "first image" if member is first else f"{member.similarity:.1%} similar"


def _ids_of_report(table: Path) -> set[int]:
    """Read the item ids in the table of an earlier report.

    Return an empty set if the file is missing or does not belong to a report.
    """
    if not table.is_file():
        return set()
    with (
        table.open(encoding="utf-8", errors="surrogateescape", newline="") as stream,
        suppress(csv.Error),
    ):
        rows = csv.DictReader(stream)
        if tuple(rows.fieldnames or ()) == COLUMNS:
            return {int(row["id"]) for row in rows if row["id"].isdecimal()}
    return set()


def _member_html(group: Group, member: Member) -> str:
    item = member.item
    label = f"{escape(one_line(item.label))}, " if item.label is not None else ""
    return MEMBER.substitute(
        thumbnail=thumbnail_file(item.id),
        path=escape(one_line(item.path)),
        facts=f"{label}{item.width:,} x {item.height:,} pixels",
        relation=relation(member, group),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
