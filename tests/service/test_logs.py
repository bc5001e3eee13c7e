"""The log as text and as JSON."""

import json
import logging
import re
import warnings

import pytest

from service.logs import request_id
from tests.service.conftest import LogTo

logger = logging.getLogger("service.example")


def test_a_line_of_text_has_time_level_logger_and_request(log_to: LogTo) -> None:
    stream = log_to()
    logger.warning("%d images", 3)
    request_id.set("abc")
    logger.info("more")
    first, second = stream.getvalue().splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{time} WARNING service\.example: 3 images", first)
    assert re.fullmatch(rf"{time} INFO service\.example \[abc\]: more", second)


def test_the_time_is_utc(log_to: LogTo) -> None:
    stream = log_to()
    record = logging.makeLogRecord({"name": "service", "msg": "then", "levelno": logging.INFO})
    record.created = 1.0625
    logging.getLogger().handle(record)
    assert stream.getvalue().startswith("1970-01-01T00:00:01.062Z ")


def test_a_message_cannot_forge_a_line_of_text(log_to: LogTo) -> None:
    stream = log_to()
    logger.warning("one\n2026-01-01T00:00:00.000Z INFO service: two\r\x1b[31m\x85\u2028")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r"one\n2026-01-01T00:00:00.000Z INFO service: two\r\x1b[31m\x85\u2028")


def test_a_json_line_has_the_fields_and_the_traceback(log_to: LogTo) -> None:
    stream = log_to(log_format="json")
    request_id.set("abc")
    try:
        raise ValueError("wrong\nvalue")
    except ValueError:
        logger.exception("failed\n", extra={"fields": {"status": 500}})
    (line,) = stream.getvalue().splitlines()
    content = json.loads(line)
    assert content.pop("time").endswith("Z")
    traceback = content.pop("exception")
    assert traceback.startswith("Traceback")
    assert traceback.endswith("ValueError: wrong\nvalue")
    assert content == {
        "level": "error",
        "logger": "service.example",
        "message": "failed",
        "request_id": "abc",
        "status": 500,
    }


def test_a_traceback_follows_a_line_of_text(log_to: LogTo) -> None:
    stream = log_to()
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("failed")
    first, *others = stream.getvalue().splitlines()
    assert first.endswith(": failed")
    assert others[0].startswith("Traceback")
    assert others[-1] == "ValueError: wrong"


@pytest.mark.parametrize(
    ("log_level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_chooses_the_records(log_to: LogTo, log_level: str, expected: list[str]) -> None:
    stream = log_to(log_level=log_level)
    for level in ("debug", "info", "warning", "error"):
        getattr(logger, level)(level)
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == expected


def test_the_loggers_of_uvicorn_and_the_warnings_of_python_have_the_same_format(
    log_to: LogTo,
) -> None:
    stream = log_to(log_format="json")
    logging.getLogger("uvicorn.error").error("Invalid HTTP request received.")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # pytest has its own handling of warnings
        warnings.warn("old", stacklevel=1)
    loggers = [json.loads(line)["logger"] for line in stream.getvalue().splitlines()]
    assert loggers == ["uvicorn.error", "py.warnings"]


def test_a_second_configuration_replaces_the_first(log_to: LogTo) -> None:
    first, second = log_to(), log_to(log_format="json")
    logger.info("once")
    assert not first.getvalue()
    assert len(second.getvalue().splitlines()) == 1


def test_a_traceback_cannot_control_the_terminal(log_to: LogTo) -> None:
    stream = log_to()
    try:
        raise ValueError("\x1b[2J\x9b1m\rforged")
    except ValueError:
        logger.exception("failed")
    assert "\\x1b[2J\\x9b1m\\rforged" in stream.getvalue()
    assert all(one.isprintable() for line in stream.getvalue().split("\n") for one in line)
