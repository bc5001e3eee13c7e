"""The settings of the service. They are read from environment variables.

The variable of a setting is LOOKALIKE_ and the name in capitals, for example LOOKALIKE_MAX_K.
"""

import ipaddress
import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.environment import DEFAULT_HOST, DEFAULT_PORT, PREFIX, is_port_of_kubernetes
from training.data.images import MAX_PIXELS
from training.devices import RequestedPrecision
from training.errors import UserError
from training.parallel import num_cores

MAX_ROOT_PATH_CHARACTERS = 200
_ROOT_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*")
_KEY = re.compile(r"[!-~]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._~\[\]:-]+")


class Settings(BaseSettings):
    """The settings of the service.

    Create them with `read_settings`, which raises a UserError for a wrong value.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    host: str = DEFAULT_HOST
    """Address to listen on. 0.0.0.0 means all network interfaces of this machine."""
    port: int = Field(DEFAULT_PORT, ge=0, le=65535)
    """Port to listen on. 0 means any free port."""
    max_image_bytes: int = Field(20_000_000, ge=1)
    """Maximum size of one image file, in bytes."""
    max_request_bytes: int = Field(64_000_000, ge=1)
    """Maximum size of a request body, in bytes. It is checked while the body arrives."""
    max_images: int = Field(16, ge=1)
    """Maximum number of images in one request."""
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    """Maximum number of pixels of one image (width x height). It is checked before the image is
    decoded."""
    max_k: int = Field(100, ge=6)
    """Maximum number of classes or matches that one query may ask for. It must be at least the
    default of k."""
    max_items: int = Field(1000, ge=100)
    """Maximum number of items on one page of GET /items. It must be at least the default of
    limit."""
    max_batch: int = Field(16, ge=1)
    """Maximum number of images in one batch of the network. On a CPU, larger batches take more
    memory and are not faster."""
    max_waiting: int = Field(128, ge=1)
    """Maximum number of images that are admitted and not answered yet, in all requests together. A
    request that would exceed this number is answered with 429. The number bounds the memory."""
    max_wait_s: float = Field(1.0, gt=0)
    """Maximum time that a request may wait, in seconds. The time in which the service works on its
    images does not count. A request that would wait longer is answered with 429."""
    max_uploads: int = Field(256, ge=1)
    """Maximum number of requests whose bodies are arriving at the same time. Other requests are
    answered with 429."""
    upload_s: float = Field(60.0, gt=0)
    """Maximum time in which a request body must arrive, in seconds."""
    min_upload_rate: int = Field(10_000, ge=0)
    """Minimum rate at which a request body must arrive after the first five seconds, in bytes per
    second. A slower client is cut off."""
    hang_s: float = Field(30.0, gt=0)
    """If the network works on one batch for longer than this time, in seconds, /readyz answers
    503."""
    poll_s: float = Field(1.0, gt=0)
    """How often the service looks for a new commit of its index, in seconds."""
    write_key: SecretStr | None = None
    """The key that a client needs to add and remove items, and to read. Without it, nobody can
    change the index through the service."""
    metrics_port: int | None = Field(None, ge=1, le=65535)
    """Port for /metrics. With it, the figures need no key, and the other port does not answer
    /metrics. So a firewall can keep the figures from clients."""
    read_key: SecretStr | None = None
    """The key that a client needs to read. Without it, everybody may read."""
    num_decoders: int = Field(default_factory=num_cores, ge=1)
    """Number of threads that decode images."""
    precision: RequestedPrecision = "auto"
    """Precision of the network that answers: auto, float32 or int8. With auto, it is int8 on the
    CPU if the model has a network in int8 whose answers agree with those in float32, and if the
    processor has instructions for int8. Images that are added always get features in the precision
    of the index."""
    num_threads: int | None = Field(None, ge=1)
    """Number of threads that the network uses. By default, it uses all cores."""
    drain_s: float = Field(0.0, ge=0)
    """Time for which the service still accepts requests after it has been asked to stop, in
    seconds. During this time /readyz answers 503, so that a load balancer can send its requests to
    other instances."""
    shutdown_s: int = Field(30, ge=0)
    """Time that unfinished requests have after `drain_s`, in seconds. After this time, they
    are cancelled."""
    keep_alive_s: int = Field(75, ge=1)
    """Time after which an idle connection is closed, in seconds. It must be longer than the time
    for which the proxy keeps idle connections, which is 60 seconds for nginx and for the load
    balancers of AWS. Otherwise the proxy sends some requests on connections that are just being
    closed, and answers them with 502."""
    root_path: str = ""
    """Path under which a proxy publishes the service, for example /lookalike. A valid
    X-Forwarded-Prefix of a trusted proxy replaces it."""
    forwarded_allow_ips: Annotated[tuple[str, ...], NoDecode] = ("127.0.0.1", "::1")
    """Addresses and networks of trusted proxies, separated by commas or as a JSON list. * trusts
    every client. Only their headers X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix are
    used."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of web pages that may use the service from a browser (CORS), separated by commas or
    as a JSON list, for example https://photos.example. * allows every origin, but without the
    browser's credentials. By default, no other origin is allowed."""
    access_log: bool = False
    """Write a log line for every request, whatever `log_level` is."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log on standard error: lines of text, or one JSON object per line."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of the records in the log. Only with debug, the log contains the queries of
    requests and messages of libraries, which can contain file names."""

    @model_validator(mode="before")
    @classmethod
    def _ignore_port_of_kubernetes(cls, values: dict[str, Any]) -> dict[str, Any]:
        is_ignored = is_port_of_kubernetes(values.get("port"))
        return {name: values[name] for name in values if name != "port" or not is_ignored}

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("forwarded_allow_ips", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)  # its error is a ValueError
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        root_path = plain_root_path(value)
        if root_path is None:
            raise ValueError(
                "must be a path such as /lookalike: it starts with a slash, and contains only "
                "letters, digits and . _ ~ - between the slashes"
            )
        return root_path

    @field_validator("write_key", "read_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _KEY.fullmatch(value.get_secret_value()):
            raise ValueError(
                "must be a key of visible ASCII characters without spaces; "
                "to use no key, do not set the variable"
            )
        return value

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != ("*",):
            for network in value:
                ipaddress.ip_network(network)  # its error is a ValueError
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.lower() for origin in value)
        if origins != ("*",) and not all(map(_ORIGIN.fullmatch, origins)):
            raise ValueError(
                "must be * alone, or origins such as https://photos.example: a scheme and a host, "
                "and a port if it is not the usual one, but no path"
            )
        return origins

    @model_validator(mode="after")
    def _one_request_must_fit(self) -> Self:
        if self.max_waiting < self.max_images:
            raise ValueError(
                f"max_waiting ({self.max_waiting}) must be at least max_images "
                f"({self.max_images}); otherwise a request of that size is always refused"
            )
        return self


def plain_root_path(text: str) -> str | None:
    """The path without a slash at its end. None if it is too long or contains other characters.

    Root paths become a part of HTML and of addresses. The characters of the result need no escaping
    there.
    """
    root_path = text.rstrip("/")
    is_plain = len(root_path) <= MAX_ROOT_PATH_CHARACTERS and _ROOT_PATH.fullmatch(root_path)
    return root_path if is_plain else None


def read_settings(**given: Any) -> Settings:
    """Read the settings from the environment. An argument replaces the value of its variable.

    Raises UserError if a setting is wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UserError(reason) from error
        name = f"{PREFIX}{first['loc'][0]}".upper()
        is_key = first["loc"][0] in ("write_key", "read_key")  # a key must not be shown
        shown = "" if is_key else f"; got {first['input']!r}"
        raise UserError(f"{name}: {reason}{shown}") from (None if is_key else error)
