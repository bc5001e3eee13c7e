"""Ctrl-C, SIGTERM and SIGKILL: a stopped run continues as if nothing had happened."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from training.files import TEMPORARY_SUFFIX
from training.interruption import stop_on_signal
from training.learning.checkpoint import CHECKPOINT_FILE
from training.network.model import CARD_FILE, read_card

LOOKALIKE = [str(Path(sys.executable).with_name("lookalike"))]
SAVE_EVERY_STEP = """
import lookalike, training.learning.epoch
training.learning.epoch.CHECKPOINT_INTERVAL_S = 0
lookalike.main()
"""
LOOKALIKE_SAVING_EVERY_STEP = [sys.executable, "-c", SAVE_EVERY_STEP]
"""The same command, but it does not wait ten minutes between two checkpoints."""
RANDOM_SETTINGS = ("mixup=0.2", "cutmix=0.2", "colour_noise=0.1", "dropout=0.5")
SETTINGS = ("batch_size=4", "learning_rate=0.002", "precision=float32", *RANDOM_SETTINGS)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIMEOUT_S = 300
ROOT = Path(__file__).parents[2]


def train_command(data: Path, out: Path, *options: str, epochs: int) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    size = ["--image-size", "67", "--epochs", str(epochs)]
    return ["train", str(data), "--out", str(out), *size, *settings, *options]


def train_process(program: list[str], command: list[str]) -> str:
    """Run the command to its end and return what it printed on the standard error."""
    done = subprocess.run(
        [*program, *command], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def stop_process(
    program: list[str], command: list[str], is_time: Callable[[], bool], number: signal.Signals
) -> tuple[int, str]:
    """Start the command and send it a signal when `is_time()`.

    Returns the exit status and what was printed on the standard error.
    """
    process = subprocess.Popen(
        [*program, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not is_time():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, printed = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, printed


def read_log(directory: Path) -> list[dict[str, Any]]:
    """The lines of the training log without their times."""
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("images_per_s", "elapsed_s")}
        for line in lines
    ]


@pytest.fixture
def default_handlers() -> Iterator[None]:
    """Set the handlers that Python usually starts with.

    A parent process such as nohup can make Python start with SIGINT ignored.
    """
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    }
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_interrupts(
    first: signal.Signals, second: signal.Signals
) -> None:
    with stop_on_signal() as stop:
        assert not stop.is_made
        signal.raise_signal(first)
        assert stop.is_made
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)


@pytest.mark.usefixtures("default_handlers")
def test_afterwards_signals_do_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signal():
        during = [signal.getsignal(number) for number in SIGNALS]
        assert not set(during) & set(before)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ZeroDivisionError), stop_on_signal():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_noted_even_if_the_parent_process_ignores_it() -> None:
    program = """
import signal
from training.interruption import stop_on_signal
assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
with stop_on_signal() as stop:
    signal.raise_signal(signal.SIGINT)
    assert stop.is_made
assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
"""
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child inherits this
    try:
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    finally:
        signal.signal(signal.SIGINT, ignored)


def test_signals_stay_as_they_are_in_another_thread() -> None:
    noted = []

    def enter() -> None:
        with stop_on_signal() as stop:
            noted.append((signal.getsignal(signal.SIGINT), stop.is_made))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert noted == [(signal.getsignal(signal.SIGINT), False)]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_the_run_says_how_to_resume_and_leaves_nothing_that_looks_like_a_model(
    number: signal.Signals, colour_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    command = train_command(colour_folder, out, epochs=1000)
    status, printed = stop_process(LOOKALIKE, command, (out / CHECKPOINT_FILE).exists, number)
    assert status > 0
    saved = f"the run is saved in {out / CHECKPOINT_FILE}; to continue it, pass --resume"
    assert f"Interrupted: {saved}" in printed
    assert "Traceback" not in printed
    state = torch.load(out / CHECKPOINT_FILE, weights_only=True)
    assert 1 <= len(state["log"]) < 1000
    assert not (out / CARD_FILE).exists()
    assert list(out.glob(f"*{TEMPORARY_SUFFIX}")) == []


@pytest.fixture(scope="module")
def uninterrupted(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    train_process(LOOKALIKE, train_command(colour_folder, out, epochs=2))
    return out


def test_a_run_that_is_killed_twice_ends_with_the_same_weights_bit_for_bit(
    uninterrupted: Path, colour_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    command = train_command(colour_folder, out, epochs=2)
    status, _ = stop_process(LOOKALIKE, command, out.exists, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (out / CHECKPOINT_FILE).exists()  # there is nothing to resume yet
    status, _ = stop_process(
        LOOKALIKE_SAVING_EVERY_STEP,
        [*command, "--resume"],
        (out / CHECKPOINT_FILE).exists,
        signal.SIGKILL,
    )
    assert status == -signal.SIGKILL
    assert not (out / CARD_FILE).exists()
    assert "Resuming after epoch" in train_process(LOOKALIKE, [*command, "--resume"])
    assert read_card(out).id == read_card(uninterrupted).id  # the SHA-256 of the weights
    assert read_log(out) == read_log(uninterrupted)
    assert {file.name for file in out.iterdir()} == {file.name for file in uninterrupted.iterdir()}
