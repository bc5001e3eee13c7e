"""The report on a collection as one HTML page that needs no other file and no script."""

from html import escape
from pathlib import Path
from tempfile import NamedTemporaryFile

from indexer.reports.collection import page_sections as sections
from indexer.reports.collection.findings import CollectionReport
from indexer.reports.collection.page_style import PAGE, SECTION
from indexer.reports.collection.text import describe_content
from indexer.storage.index import Index
from training.errors import UserError
from training.files import write_atomically
from training.naming import one_line


def check_page_file(index: Index, out: Path) -> None:
    """Raise UserError if the page cannot be written to the file `out`. Its folder is made."""
    try:
        if out.is_dir():
            raise UserError(
                f"the report needs the name of a file, got the folder {out}; pass --out FILE.html"
            )
        if index.directory.resolve() in out.resolve().parents:
            raise UserError(
                f"the report cannot be written into the index {index.directory}; pass another --out"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}"):
            pass
    except OSError as error:
        is_below_file = isinstance(error, FileExistsError | NotADirectoryError)
        problem = "a file is in the place of its folder" if is_below_file else error.strerror
        raise UserError(
            f"the report cannot be written to {out} ({problem}); pass another --out"
        ) from error


def write_page(index: Index, report: CollectionReport, out: Path) -> None:
    """Write the page to the file `out`; raises UserError if this is not possible."""
    check_page_file(index, out)
    write_atomically(out, to_html(index, report).encode("utf-8", errors="replace"))


def to_html(index: Index, report: CollectionReport) -> str:
    """The page. Paths and labels are always shown as text, even if they contain HTML."""
    parts = [part for part in sections.all_sections(index, report) if part.content]
    contents = "".join(
        f'<li><a href="#{part.id}">{escape(part.title)}</a></li>\n' for part in parts
    )
    body = "".join(
        SECTION.substitute(id=part.id, title=escape(part.title), content=part.content)
        for part in parts
    )
    return PAGE.substitute(
        name=escape(one_line(index.name)),
        summary=escape(describe_content(report)),
        contents=contents,
        sections=body,
    )
