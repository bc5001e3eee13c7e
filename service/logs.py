"""The log of the service, as text or as JSON. Every record names the request that it belongs to."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from service.settings import Settings

ACCESS_LOG = "service.access"
"""The logger of the lines that `access_log` asks for."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the current task works on. It is empty outside of a request."""

_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): r"\n",
    ord("\r"): r"\r",
    ord("\t"): r"\t",
    0x2028: r"\u2028",
    0x2029: r"\u2029",
}


class RequestIdFilter(logging.Filter):
    """Gives every record the attribute `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class TextFormatter(logging.Formatter):
    """Time in UTC, level, logger, request id if there is one, and the message on one line.

    Control characters of the message are escaped. So a request cannot forge a line. A traceback
    follows on lines of its own.
    """

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"

    def formatMessage(self, record: logging.LogRecord) -> str:
        request = f" [{id}]" if (id := getattr(record, "request_id", "")) else ""
        message = record.message.rstrip("\n").translate(_CONTROL_CHARACTERS)
        return f"{self.formatTime(record)} {record.levelname} {record.name}{request}: {message}"

    def format(self, record: logging.LogRecord) -> str:
        # Another handler may have kept the text of the traceback with its control characters.
        kept, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = kept

    def formatException(self, ei: Any) -> str:
        return self._plain(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return self._plain(super().formatStack(stack_info))

    def _plain(self, lines: str) -> str:
        """Lines whose control characters are escaped."""
        return "\n".join(line.translate(_CONTROL_CHARACTERS) for line in lines.split("\n"))


class JsonFormatter(TextFormatter):
    """One JSON object per line: time, level, logger, message, request_id and exception.

    If a record has an attribute `fields`, its entries are added to the object.
    """

    def format(self, record: logging.LogRecord) -> str:
        content = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().rstrip("\n"),
        }
        if id := getattr(record, "request_id", ""):
            content["request_id"] = id
        content |= getattr(record, "fields", {})
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            content["stack"] = self.formatStack(record.stack_info)
        return json.dumps(content, default=str)


class _Handler(logging.StreamHandler[TextIO]):
    """The handler of this module, so that `configure` finds it again."""


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Write the log of this process to a stream, which is standard error by default.

    Handlers that other code has installed stay.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    handler.addFilter(RequestIdFilter())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    logging.getLogger(ACCESS_LOG).setLevel(logging.INFO)
    logging.captureWarnings(True)
