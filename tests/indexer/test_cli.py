"""`lookalike search`, `classify`, `report`: what they print, and what they import for options."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from indexer.cli import app, index_app
from indexer.embedder import Embedder
from indexer.learned.probe_fitting import make_probe
from tests.conftest import Run, coloured
from tests.indexer.conftest import Succeed


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """A green image."""
    file = tmp_path / "query.png"
    coloured("green", 900).save(file)
    return file


def test_search_prints_the_matches_of_each_image(
    tiny_index: Path, query: Path, tmp_path: Path, succeed: Succeed
) -> None:
    other = tmp_path / "other.png"
    coloured("red", 901).save(other)
    lines = succeed("search", tiny_index, query, other, "-k", "2")[0].splitlines()
    assert (lines[0], lines[3]) == (str(query), str(other))
    for line, label in zip(
        (*lines[1:3], *lines[4:]), ("green", "green", "red", "red"), strict=True
    ):
        distance, shown_label, path = line.split()
        assert (len(distance.partition(".")[2]), shown_label) == (3, label)
        assert path.startswith(f"{label}/")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_as_json_names_the_model_the_index_and_its_commit(
    tiny_index: Path, query: Path, succeed: Succeed, metric: str
) -> None:
    out, _ = succeed("search", tiny_index, query, "--metric", metric, "--json")
    answer = json.loads(out)
    (result,) = answer.pop("results")
    assert answer == {
        "model": Embedder(tiny_index / "model").card.id,
        "precision": "float32",
        "index": tiny_index.name,
        "commit": 1,
        "metric": metric,
    }
    assert result["filename"] == str(query)
    assert len(result["matches"]) == 6
    assert all(list(match) == ["id", "path", "label", "distance"] for match in result["matches"])


def test_search_restricts_the_matches_to_a_label(
    tiny_index: Path, query: Path, run: Run, succeed: Succeed
) -> None:
    out, _ = succeed("search", tiny_index, query, "--label", "blue", "-k", "20")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["blue"] * 6
    labels = ("--label", "blue", "--label", "red")
    out, _ = succeed("search", tiny_index, query, *labels, "-k", "20")
    assert sorted(line.split()[1] for line in out.splitlines()[1:]) == ["blue"] * 6 + ["red"] * 6
    complaint = "no item has the label pink; the labels are: blue, green, red"
    assert run("search", tiny_index, query, "--label", "pink") == (
        1,
        "",
        f"lookalike: {complaint}\n",
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_search_ranks_by_either_distance(
    tiny_index: Path, query: Path, succeed: Succeed, metric: str
) -> None:
    out, _ = succeed("search", tiny_index, query, "-k", "3", "--metric", metric, "--json")
    matches = json.loads(out)["results"][0]["matches"]
    assert [match["label"] for match in matches] == ["green"] * 3
    assert (max(match["distance"] for match in matches) < 1) == (metric == "cosine")


def test_an_unknown_metric_is_an_error_of_one_line(tiny_index: Path, query: Path, run: Run) -> None:
    complaint = "the metric must be one of euclidean, cosine, hamming, got 'manhattan'"
    assert run("search", tiny_index, query, "--metric", "manhattan") == (
        1,
        "",
        f"lookalike: {complaint}\n",
    )


@pytest.mark.parametrize("command", ["search", "classify"])
def test_a_missing_image_is_an_error_of_one_line(tiny_index: Path, run: Run, command: str) -> None:
    complaint = "lookalike: nowhere.png does not exist; pass image files\n"
    assert run(command, tiny_index, "nowhere.png") == (1, "", complaint)


def test_classify_prints_the_classes_of_a_model_or_of_an_index(
    tiny_index: Path, tiny_model: Path, query: Path, succeed: Succeed
) -> None:
    lines = succeed("classify", tiny_model, query, "-k", "2")[0].splitlines()
    assert lines[0] == str(query)
    probabilities = [float(line.split()[0].rstrip("%")) for line in lines[1:]]
    assert len(probabilities) == 2
    assert probabilities == sorted(probabilities, reverse=True)
    by_index, by_model = (
        json.loads(succeed("classify", directory, query, "--json")[0])
        for directory in (tiny_index, tiny_model)
    )
    assert by_index == by_model
    assert (by_model["model"], by_model["by"]) == (Embedder(tiny_model).card.id, "classes")
    (result,) = by_model["results"]
    assert [list(score) for score in result["classes"]] == [["name", "index", "probability"]] * 3


def test_classify_by_items_answers_with_the_labels_of_the_index(
    own_index: Path, tiny_model: Path, query: Path, run: Run, succeed: Succeed
) -> None:
    missing = run("classify", own_index, query, "--by", "items")
    assert (missing.status, missing.out) == (1, "")
    assert "lookalike index probe" in missing.err
    refused = run("classify", tiny_model, query, "--by", "items")
    assert "is not an index; pass an index, or leave out --by" in refused.err
    make_probe(own_index)
    answer = json.loads(succeed("classify", own_index, query, "--by", "items", "--json")[0])
    assert (answer["by"], answer["results"][0]["classes"][0]["name"]) == ("items", "green")


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (app, "classify figures index report search"),
        (
            index_app,
            "add build compact duplicates encode export map probe quality remove stats verify",
        ),
    ],
)
def test_the_names_of_the_commands_are_a_contract(group: typer.Typer, names: str) -> None:
    commands = typer.main.get_group(group).commands
    assert " ".join(sorted(commands)) == names


def test_reading_the_options_imports_no_heavy_library() -> None:
    heavy = ["faiss", "onnxruntime", "torch", "sklearn", "matplotlib", "fastapi"]
    program = f"import sys, indexer.cli; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_report_prints_a_few_lines_and_writes_the_page(
    own_index: Path, tmp_path: Path, succeed: Succeed
) -> None:
    out, err = succeed("report", own_index, "--out", tmp_path / "report.html")
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"{own_index}: 18 items, 3 labels."
    assert lines[1] == "top-1 on 18 images of the index:"
    assert lines[2].split() == ["100.0%", "probe", "on", "its", "features"]
    assert lines[-1] == f"Wrote {tmp_path / 'report.html'}"
    assert "<h1>Report on " in (tmp_path / "report.html").read_text("utf-8")
    out, _ = succeed("report", own_index)
    assert out.splitlines()[:-1] == lines[:-1]
    assert out.splitlines()[-1] == "To see pictures, pass --out FILE.html"


def test_report_as_json_has_all_figures(
    own_index: Path, colour_folder: Path, succeed: Succeed, run: Run
) -> None:
    facts = json.loads(succeed("report", own_index, "--json")[0])
    assert facts["confusion"] == [[6, 0, 0], [0, 6, 0], [0, 0, 6]]
    assert facts["precision_at_nearest"].keys() == {"euclidean", "cosine"}
    assert [label["recall"] for label in facts["labels"]] == [1, 1, 1]
    status, _, err = run("report", own_index, "--queries", colour_folder)
    assert status == 1
    assert "none of the 18 images" in err
    assert len(err.splitlines()) == 1


def test_report_works_on_a_read_only_volume_and_says_what_the_index_does_not_keep(
    tiny_index: Path, read_only: Callable[[Path], Path], succeed: Succeed
) -> None:
    index = read_only(tiny_index)
    out, err = succeed("report", index, "--json")
    assert json.loads(out)["better_metric"] == "euclidean"
    assert err == (
        "The index does not keep which distance ranks better: "
        f"{index} cannot be changed (Read-only file system); make it writable, or work on a copy\n"
    )


def test_search_and_classify_take_a_precision_and_say_what_answered(
    int8_model: Path, colour_folder: Path, query: Path, tmp_path: Path, run: Run, succeed: Succeed
) -> None:
    index = tmp_path / "index"
    succeed("index", "build", colour_folder, "--model", int8_model, "--out", index)
    for command in (("search", index), ("classify", index), ("classify", int8_model)):
        for precision in ("float32", "int8"):
            out, _ = succeed(*command, query, "--precision", precision, "--json")
            assert json.loads(out)["precision"] == precision
    refused = run("search", index, query, "--precision", "int4")
    assert refused.status == 2


def test_build_takes_a_precision_and_stats_show_it(
    int8_model: Path, colour_folder: Path, tmp_path: Path, succeed: Succeed
) -> None:
    index = tmp_path / "index"
    command = ("index", "build", colour_folder, "--model", int8_model, "--out", index)
    succeed(*command, "--precision", "int8")
    assert json.loads(succeed("index", "stats", index, "--json")[0])["precision"] == "int8"
