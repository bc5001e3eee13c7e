from html.parser import HTMLParser
from pathlib import Path

import pytest

from indexer.reports.collection.page import to_html, write_page
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
    with pytest.raises(UserError, match=r"cannot be written into the index"):
        write_page(index, report, directory / "report.html")
