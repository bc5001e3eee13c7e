"""The whole pipeline as users run it: the installed command, real HTTP, and the demo's promises."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from indexer.answers import without_itself
from indexer.metrics import QueryMetric
from indexer.opening import open_index
from indexer.reports.ranking import precision_at_k
from training.data.datasets import held_out_examples
from training.data.examples import Example
from training.data.images import read_square
from training.network.export import load_network

LOOKALIKE = Path(sys.executable).with_name("lookalike")

pytestmark = pytest.mark.timeout(1200)  # the demo trains a network: minutes on a busy machine


def lookalike(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LOOKALIKE, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the digits demo, with a model, an index and figures."""
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
        url = re.search(r"http://\S+", line)
        assert url, line
        yield url[0]
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
    opened = open_index(demo / "index")
    rerank = 0 if metric == "hamming" else None
    answers = opened.similar(
        [example.source for example in held_out], 7, metric=metric, rerank=rerank
    )
    matches = [
        without_itself(answer, example, 6)
        for answer, example in zip(answers, held_out, strict=True)
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


def written(directory: Path) -> dict[str, tuple[int, int]]:
    """When each file was written and which file it is, by its path: modification time and inode."""
    files = {file: file.stat() for file in directory.rglob("*") if file.is_file()}
    return {str(file): (status.st_mtime_ns, status.st_ino) for file, status in files.items()}


def test_a_second_demo_repeats_no_step(demo: Path) -> None:
    before = written(demo)
    done = lookalike("demo", "--workdir", demo, "--no-serve")
    assert done.returncode == 0
    assert done.stderr.count("already done") == 5
    assert written(demo) == before


def test_a_demo_of_other_data_is_refused_in_the_same_directory(
    demo: Path, colour_folder: Path
) -> None:
    done = lookalike("demo", colour_folder, "--workdir", demo, "--no-serve")
    assert done.returncode == 1
    error = r"lookalike: .* was made from digits, not .*; pass another --workdir, .*\n"
    assert re.fullmatch(error, done.stderr)


def test_one_image_has_one_feature_through_evaluation_search_and_http(
    demo: Path, held_out: tuple[Example, ...], address: str, tmp_path: Path
) -> None:
    assert isinstance(held_out[0].source, bytes)
    image = tmp_path / "digit.png"
    image.write_bytes(held_out[0].source)
    network, _ = load_network(demo / "model")
    with torch.inference_mode():
        evaluated = network(torch.tensor(read_square(image, 67))[None])[1][0].numpy()

    def printed(*arguments: object) -> dict[str, Any]:
        """The result that a command prints as JSON for the image."""
        content = json.loads(lookalike(*arguments, image, "--json").stdout)
        result: dict[str, Any] = content["results"][0]
        return result

    def served(path: str) -> dict[str, Any]:
        """The result that the service answers for the image."""
        answer = httpx.post(f"{address}{path}", files={"image": image.read_bytes()}).json()
        result: dict[str, Any] = answer["results"][0]
        return result

    feature = np.array(served("/features")["features"], np.float32)
    np.testing.assert_allclose(feature, evaluated, rtol=1e-3, atol=1e-3 * float(evaluated.max()))

    by_command = printed("search", demo / "index")["matches"]
    by_service = served("/similar")["matches"]
    assert [match["id"] for match in by_command] == [match["id"] for match in by_service]
    np.testing.assert_allclose(
        [match["distance"] for match in by_command],
        [match["distance"] for match in by_service],
        rtol=1e-3,
        atol=1e-3,
    )
    assert by_command[0]["path"] == held_out[0].path
    assert by_command[0]["distance"] == pytest.approx(0, abs=1e-2)

    classes = printed("classify", demo / "model")["classes"]
    names = [score["name"] for score in classes]
    assert names == [score["name"] for score in served("/classify")["classes"]]
    assert names[0] == held_out[0].label


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
def test_a_missing_file_is_an_error_of_one_line_and_exit_status_1(
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


def test_an_unreadable_query_is_named_in_one_line(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    done = lookalike("search", demo / "index", tmp_path / "notes.txt")
    assert done.returncode == 1
    error = r"lookalike: .*notes\.txt: this is not an image; use JPEG, .*\n"
    assert re.fullmatch(error, done.stderr)


def test_the_whole_pipeline_works_on_a_folder_of_images_some_of_them_broken(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    # One in five examples is held out, so some of the broken files are.
    for number in range(10):
        broken = own_colour_folder / "red" / f"broken{number}.png"
        broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert any("broken" in example.path for example in held_out_examples(str(own_colour_folder)))
    work = tmp_path / "work"
    options = ["--workdir", work, "--no-serve", "--epochs", 2, "--image-size", 67]
    done = lookalike("demo", own_colour_folder, "--init", "none", *options)
    assert done.returncode == 0, done.stderr
    assert "skipped files: 10, listed" in done.stderr
    assert "broken9.png" in (work / "index" / "skipped.csv").read_text()
    stats = json.loads(lookalike("index", "stats", work / "index", "--json").stdout)
    assert stats["labels"] == {"blue": 6, "green": 6, "red": 6}


def test_an_interrupted_training_continues_after_its_last_epoch(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    command: list[str | Path] = ["train", own_colour_folder, "--out", tmp_path / "model"]
    command += ["--image-size", "67", "--epochs", "12"]
    with subprocess.Popen([LOOKALIKE, *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Epoch   2/"):
                process.terminate()
                break
    assert not (tmp_path / "model" / "model.json").exists()
    assert "pass --resume" in lookalike(*command).stderr
    resumed = lookalike(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"Resuming after epoch \d+ of 12", resumed.stderr)
    assert len((tmp_path / "model" / "log.jsonl").read_text().splitlines()) == 12
