from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from indexer.reports.collection.page import check_page_file, to_html, write_page
from indexer.reports.collection_report import report_collection
from indexer.storage.index import Index
from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import (
    NASTY,
    clear_collection,
    write_collection,
)
from training.errors import UserError


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> str:
    directory = clear_collection(tmp_path / "index")
    return to_html(Index.open(directory), report_collection(directory))


def test_the_page_needs_no_other_file_and_no_script(page: str) -> None:
    elements = Elements(page)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in elements.found}
    sources = [str(attributes["src"]) for attributes in elements.named("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "url(" not in page
    assert "http" not in page


def test_the_contents_lead_to_each_section(page: str) -> None:
    elements = Elements(page)
    links = [str(attributes["href"])[1:] for attributes in elements.named("a")]
    headings = [attributes["id"] for attributes in elements.named("h2")]
    assert links == headings
    assert len(elements.named("h1")) == 1
    assert {"advice", "accuracy", "labels", "wrong-labels", "method"} <= set(links)


def test_every_picture_has_a_text(page: str) -> None:
    texts = [attributes["alt"] for attributes in Elements(page).named("img")]
    assert all(str(text).startswith("Image of the item ") for text in texts)


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    features, labels = clusters(2, 20)
    labels = [NASTY if label == "label 0" else label for label in labels]
    labels[0] = "label 1"
    paths = [f"{NASTY}{number}.png" for number in range(20)]
    directory = write_collection(tmp_path / "index", features, labels, paths=paths)
    page = to_html(Index.open(directory), report_collection(directory))
    assert "<script" not in page
    assert "a&quot;b\\n&lt;script&gt;&amp;" in page


def test_the_page_is_written_to_the_file_and_folders_are_made(tmp_path: Path) -> None:
    directory, out = clear_collection(tmp_path / "index"), tmp_path / "new" / "report.html"
    report = report_collection(directory, out)
    assert out.read_text("utf-8") == to_html(Index.open(directory), report)


def test_a_folder_or_a_file_in_the_index_is_refused(tmp_path: Path) -> None:
    directory = clear_collection(tmp_path / "index")
    report, index = report_collection(directory), Index.open(directory)
    with pytest.raises(UserError, match=r"needs the name of a file, got the folder"):
        write_page(index, report, tmp_path)
    before = sorted(directory.iterdir())
    for name in ("report.html", "new/report.html"):
        with pytest.raises(UserError, match=r"cannot be written into the index"):
            write_page(index, report, directory / name)
    assert sorted(directory.iterdir()) == before


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: Callable[[Path], Path]
) -> None:
    directory = clear_collection(tmp_path / "index")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    files = [
        tmp_path,
        directory / "report.html",
        tmp_path / "file" / "report.html",
        tmp_path / f"{'long' * 100}.html",
        read_only(tmp_path / "folder") / "report.html",
    ]
    monkeypatch.setattr(
        "indexer.reports.collection_report.take_sample",
        lambda *_: pytest.fail("the measurement began"),
    )
    for file in files:
        with pytest.raises(UserError, match=r"; pass another --out|; pass --out FILE\.html"):
            report_collection(directory, file, queries="missing")


def test_the_check_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    index = Index.open(clear_collection(tmp_path / "index"))
    out = tmp_path / "out" / "report.html"
    check_page_file(index, out)
    assert [*out.parent.iterdir()] == []
    out.write_text("earlier")
    check_page_file(index, out)
    assert out.read_text() == "earlier"


def test_the_page_says_which_commands_make_it_and_serve_the_index(page: str) -> None:
    assert "This page needs no other file. To make it again, run: lookalike report " in page
    assert "index --out FILE.html. To search the images, run: lookalike serve " in page
