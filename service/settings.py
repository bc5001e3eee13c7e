"""The settings of the service.

Each is set by an environment variable: LOOKALIKE_ and its name in capitals.
"""

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from training.data.images import MAX_PIXELS
from training.errors import UserError
from training.parallel import num_cores

PREFIX = "LOOKALIKE_"


class Settings(BaseSettings):
    """The settings of the service.

    `read_settings` reads them and turns their errors into UserErrors.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 listens on every network of this machine."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on. 0 takes any free port."""
    max_image_bytes: int = Field(20_000_000, ge=1)
    """Maximum size of one image file, in bytes."""
    max_request_bytes: int = Field(64_000_000, ge=1)
    """Maximum size of a request body, in bytes, checked while it arrives."""
    max_images: int = Field(16, ge=1)
    """Maximum number of images in one request."""
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    """Maximum number of pixels of one image, width x height, checked before it is decoded."""
    max_k: int = Field(100, ge=6)
    """Maximum number of classes or matches that one query may ask for. Not less than the default of
    k."""
    max_items: int = Field(1000, ge=100)
    """Maximum number of items on one page of GET /items. Not less than the default of limit."""
    max_batch: int = Field(32, ge=1)
    """Maximum number of images that go through the network together."""
    max_waiting: int = Field(128, ge=1)
    """Maximum number of images, over all requests, that are being decoded or wait for the network.
    A request beyond that is answered with 429."""
    num_decoders: int = Field(default_factory=num_cores, ge=1)
    """Number of threads that decode images and search the index."""
    num_threads: int | None = Field(None, ge=1)
    """Number of threads of the network. All cores if not set."""
    drain_s: float = Field(0.0, ge=0)
    """After the service has been asked to stop: how long it still takes requests while /readyz
    answers 503, in seconds. In that time a load balancer can send its requests elsewhere."""
    shutdown_s: int = Field(30, ge=0)
    """After that: how long the requests under way may take before they are cut off, in seconds."""
    access_log: bool = False
    """Write a log line for every request."""

    @model_validator(mode="after")
    def _one_request_must_fit(self) -> Self:
        if self.max_waiting < self.max_images:
            raise ValueError(
                f"max_waiting ({self.max_waiting}) must be at least max_images "
                f"({self.max_images}), because a full request could never be taken"
            )
        return self


def read_settings(**given: Any) -> Settings:
    """Read the settings from the environment. Those given here win; raises UserError."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UserError(reason) from error
        name = f"{PREFIX}{first['loc'][0]}".upper()
        raise UserError(f"{name}: {reason}; got {first['input']!r}") from error
