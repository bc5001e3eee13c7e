"""The duplicates of an index as a page to look at and a table to work with.

The thumbnails are files beside the page, loaded as they come into view: 5,000 groups inlined would be a page of 150 MB.
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
from indexer.storage.index import Index
from training.errors import UserError
from training.files import write_atomically
from training.progress import one_line

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
:root { --ground: #f6f4f0; --surface: #fffefb; --line: #e3dfd7; --ink: #22231f; --quiet: #6a6a63; --accent: #2f6f6a; --soft: #d9e8e5; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #171816; --surface: #20221f; --line: #343732; --ink: #eceae4; --quiet: #a3a49c; --accent: #7cc0b8; --soft: #26403d; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 36px 28px; background: var(--ground); color: var(--ink); }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1, h2, p, ul, figure { margin: 0; padding: 0; }
h1 { font-size: 1.7rem; letter-spacing: -0.02em; line-height: 1.2; }
h2 { font-size: 1rem; }
header p { margin-top: 8px; max-width: 90ch; color: var(--quiet); }
section { margin-top: 18px; padding: 16px 18px 18px; border: 1px solid var(--line); border-radius: 14px; background: var(--surface); }
section { content-visibility: auto; contain-intrinsic-size: auto 330px; }
h2 span { margin-left: 8px; padding: 2px 9px; border-radius: 99px; background: var(--soft); color: var(--accent); }
h2 span { font-size: 0.82rem; font-weight: 500; }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(190px, 45%), 1fr)); gap: 18px; margin-top: 12px; list-style: none; }
li { font-size: 0.86rem; overflow-wrap: anywhere; }
li > div { aspect-ratio: 1; overflow: hidden; background: var(--ground); }
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
<p>The first of a group has the most pixels. The same list is in $csv_file.</p>
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


def write_report(index: Index, found: Duplicates, out: Path) -> list[Path]:
    """Writes duplicates.html, its thumbnails, and duplicates.csv into `out`, in place of an earlier report's.

    Raises UserError where that is the index itself.
    """
    if out.resolve() == index.directory.resolve():
        raise UserError(
            f"the report needs a directory of its own, got the index {out}; pass another --out"
        )
    (out / THUMBNAIL_FOLDER).mkdir(parents=True, exist_ok=True)
    earlier = _ids_of_report(out / CSV_FILE)
    ids = {member.item.id for group in found.groups for member in group.members}
    for id in ids:
        (out / thumbnail_file(id)).write_bytes(index.thumbnail(id) or b"")
    files = [out / HTML_FILE, out / CSV_FILE]
    write_atomically(files[0], to_html(found).encode("utf-8", errors="replace"))
    write_atomically(files[1], to_csv(found).encode("utf-8", errors="surrogateescape"))
    for id in earlier - ids:
        (out / thumbnail_file(id)).unlink(missing_ok=True)
    return files


def to_html(found: Duplicates) -> str:
    """The page; whatever a path or a label holds, it enters as text."""
    sections = [
        SECTION.substitute(
            number=number,
            kind="identical bytes" if group.kind == "identical" else "near-identical",
            members="".join(_member_html(group, member) for member in group.members),
        )
        for number, group in enumerate(found.groups, 1)
    ]
    return PAGE.substitute(
        summary=escape(summary(found)), csv_file=CSV_FILE, sections="".join(sections)
    )


def to_csv(found: Duplicates) -> str:
    """A row an item; `similarity` is to the group's first, `identical_to` the id of an item before it with the same bytes."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for number, group in enumerate(found.groups, 1):
        for member in group.members:
            row = {
                **asdict(member.item),
                "group": number,
                "kind": group.kind,
                "identical_to": member.identical_to,
            }
            row["similarity"] = f"{member.similarity:.4f}"
            table.writerow([row[column] for column in COLUMNS])
    return out.getvalue()


def to_json(group: Group) -> dict[str, Any]:
    """A group as `--json` prints it."""
    members = [
        {
            **asdict(member.item),
            "similarity": round(member.similarity, 4),
            "identical_to": member.identical_to,
        }
        for member in group.members
    ]
    return {"kind": group.kind, "items": members}


def summary(found: Duplicates) -> str:
    """The figures in a sentence or two."""
    if not found.groups:
        text = f"No duplicates among {_counted(found.num_items, 'image')}."
    else:
        text = (
            f"{_counted(len(found.groups), 'group')} with {found.num_images:,} of {_counted(found.num_items, 'image')}; "
            f"{found.num_identical:,} of them repeat the bytes of another."
        )
    if found.num_unreadable:
        text += f" {_counted(found.num_unreadable, 'damaged thumbnail')}, compared by the file's bytes only."
    return text


def thumbnail_file(id: int) -> str:
    """Where the page looks for an item's thumbnail, relative to itself."""
    return f"{THUMBNAIL_FOLDER}/{id}.jpg"


def relation(member: Member, group: Group) -> str:
    """What an item is to its group, in a word or two."""
    if member.identical_to is not None:
        return (
            "same bytes as the first"
            if member.identical_to == group.members[0].item.id
            else "same bytes as another"
        )
    return "first" if member is group.members[0] else f"{member.similarity:.1%} similar"


def _ids_of_report(table: Path) -> set[int]:
    """The items of an earlier report's duplicates.csv; none, where that is no report's."""
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


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
