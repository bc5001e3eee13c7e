"""The whole road as a user walks it: the installed command, real HTTP, and the figures that the demo promises."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from indexer.answers import answer, without_itself
from indexer.metrics import QueryMetric
from indexer.opening import open_for_queries
from indexer.reports.ranking import precision_at_k
from training.data.datasets import held_out_examples
from training.data.examples import Example
from training.data.images import read_square
from training.network.export import load_network

LOOKALIKE = Path(sys.executable).with_name("lookalike")


def lookalike(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOOKALIKE, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits demo, made once: a working directory with a model, an index and figures."""
    workdir = tmp_path_factory.mktemp("demo")
    done = lookalike("demo", "--workdir", workdir, "--no-serve")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def held_out() -> tuple[Example, ...]:
    return held_out_examples("digits")


@pytest.fixture(scope="module")
def address(demo: Path) -> Iterator[str]:
    """The demo's index, served by the installed command on a free port."""
    with subprocess.Popen(
        [LOOKALIKE, "serve", demo / "index", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_the_digits_model_is_right_97_times_in_100(demo: Path) -> None:
    metrics = json.loads((demo / "model" / "model.json").read_text())["metrics"]
    assert metrics["num_images"] == 355
    assert metrics["top1"] >= 0.97


@pytest.mark.parametrize("metric", ["euclidean", "hamming"])
def test_the_six_nearest_digits_are_the_same_digit_95_times_in_100(
    demo: Path, held_out: tuple[Example, ...], metric: QueryMetric
) -> None:
    _, embedder, searcher = open_for_queries(demo / "index")
    found = answer(
        [example.source for example in held_out], embedder, searcher, k=7, metric=metric, rerank=0
    )
    matches = [
        without_itself(one.matches, example, 6)
        for one, example in zip(found, held_out, strict=True)
    ]
    assert {len(row) for row in matches} == {6}
    assert precision_at_k(matches, [example.label for example in held_out]) >= 0.95


def test_the_demo_leaves_whole_figures_a_log_and_no_checkpoint(demo: Path) -> None:
    files = {file.relative_to(demo).as_posix() for file in demo.rglob("*") if file.is_file()}
    wanted = {
        "model/learning-curve.png",
        "model/log.jsonl",
        "model/model.onnx",
        "figures/figure-3.png",
        "figures/figure-4.png",
    }
    assert wanted <= files
    assert not [name for name in files if "checkpoint" in name or name.endswith((".tmp", ".u8"))]
    assert len((demo / "model" / "log.jsonl").read_text().splitlines()) == 12


def test_a_second_demo_does_nothing_again(demo: Path) -> None:
    started = time.monotonic()
    done = lookalike("demo", "--workdir", demo, "--no-serve")
    assert done.returncode == 0
    assert done.stderr.count("done before") == 4
    assert time.monotonic() - started < 15


def test_a_demo_of_other_data_is_refused_in_the_same_directory(
    demo: Path, colour_folder: Path
) -> None:
    done = lookalike("demo", colour_folder, "--workdir", demo, "--no-serve")
    assert done.returncode == 1
    assert re.fullmatch(
        r"lookalike: .* was made from digits, not .*; pass another --workdir, .*\n", done.stderr
    )


def test_one_image_has_one_feature_through_evaluation_search_and_http(
    demo: Path, held_out: tuple[Example, ...], address: str, tmp_path: Path
) -> None:
    assert isinstance(held_out[0].source, bytes)
    image = tmp_path / "digit.png"
    image.write_bytes(held_out[0].source)
    network, _ = load_network(demo / "model")
    with torch.inference_mode():
        evaluated = network(torch.tensor(read_square(image, 67))[None])[1][0].numpy()
    served = np.array(
        httpx.post(f"{address}/features", files={"image": image.read_bytes()}).json()["results"][0][
            "features"
        ],
        np.float32,
    )
    np.testing.assert_allclose(served, evaluated, rtol=1e-3, atol=1e-3 * float(evaluated.max()))

    printed = json.loads(lookalike("search", demo / "index", image, "--json").stdout)["results"][0][
        "matches"
    ]
    answered = httpx.post(f"{address}/similar", files={"image": image.read_bytes()}).json()[
        "results"
    ][0]["matches"]
    assert [match["id"] for match in printed] == [match["id"] for match in answered]
    np.testing.assert_allclose(
        [match["distance"] for match in printed],
        [match["distance"] for match in answered],
        rtol=1e-3,
        atol=1e-3,
    )
    assert printed[0]["path"] == held_out[0].path
    assert printed[0]["distance"] == pytest.approx(0, abs=1e-2)

    named = json.loads(lookalike("classify", demo / "model", image, "--json").stdout)["results"][0][
        "classes"
    ]
    classes = httpx.post(f"{address}/classify", files={"image": image.read_bytes()}).json()[
        "results"
    ][0]["classes"]
    assert [score["name"] for score in named] == [score["name"] for score in classes]
    assert named[0]["name"] == held_out[0].label


@pytest.mark.parametrize(
    "command",
    [
        ("search", "nowhere", "x.png"),
        ("serve", "nowhere"),
        ("index", "stats", "nowhere"),
        ("classify", "nowhere", "x.png"),
        ("evaluate", "nowhere", "digits"),
        ("train", "nowhere", "--out", "model"),
        ("figures", "nowhere", "--out", "figures"),
        ("index", "build", "nowhere", "--model", "nowhere", "--out", "index"),
        ("demo", "nowhere", "--workdir", "work"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_status_1(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [LOOKALIKE, *command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    *progress, last = done.stderr.splitlines()
    assert last.startswith("lookalike: nowhere")
    assert "Traceback" not in done.stderr
    assert all(line.startswith("Step 1:") for line in progress)


def test_an_unreadable_query_is_named_and_the_others_are_not_lost_in_a_traceback(
    demo: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    done = lookalike("search", demo / "index", tmp_path / "notes.txt")
    assert done.returncode == 1
    assert re.fullmatch(
        r"lookalike: .*notes\.txt: this is not an image; send JPEG, .*\n", done.stderr
    )


def test_the_whole_road_works_on_a_folder_of_photographs(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    for number in range(10):  # one in five is held out
        (own_colour_folder / "red" / f"broken{number}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n and no more"
        )
    assert any("broken" in example.path for example in held_out_examples(str(own_colour_folder)))
    done = lookalike(
        "demo",
        own_colour_folder,
        "--workdir",
        tmp_path / "work",
        "--no-serve",
        "--epochs",
        2,
        "--image-size",
        67,
    )
    assert done.returncode == 0, done.stderr
    assert "skipped files: 10, listed" in done.stderr
    assert "broken9.png" in (tmp_path / "work" / "index" / "skipped.csv").read_text()
    stats = json.loads(lookalike("index", "stats", tmp_path / "work" / "index", "--json").stdout)
    assert stats["labels"] == {"blue": 6, "green": 6, "red": 6}


def test_an_interrupted_training_goes_on_from_its_last_epoch(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    arguments: list[str | Path] = [
        LOOKALIKE,
        "train",
        own_colour_folder,
        "--out",
        tmp_path / "model",
        "--image-size",
        "67",
        "--epochs",
        "12",
    ]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Epoch   2/"):
                process.kill()
                break
    assert not (tmp_path / "model" / "model.json").exists()
    refused = lookalike(
        "train", own_colour_folder, "--out", tmp_path / "model", "--image-size", 67, "--epochs", 12
    )
    assert "pass --resume to go on" in refused.stderr
    resumed = subprocess.run([*arguments, "--resume"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"Resuming after epoch \d+ of 12", resumed.stderr)
    assert len((tmp_path / "model" / "log.jsonl").read_text().splitlines()) == 12
