"""The settings of the service. They are read from environment variables.

The variable of a setting is LOOKALIKE_ and the name in capitals, for example LOOKALIKE_MAX_K.
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

    Create them with `read_settings`, which raises a UserError for a wrong value.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 means all network interfaces of this machine."""
    port: int = Field(8000, ge=0, le=65535)
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
    max_batch: int = Field(32, ge=1)
    """Maximum number of images in one batch of the network."""
    max_waiting: int = Field(128, ge=1)
    """Maximum number of images that are being decoded or wait for the network, in all requests
    together. A request that would exceed this number is answered with 429."""
    num_decoders: int = Field(default_factory=num_cores, ge=1)
    """Number of threads that decode images and search the index."""
    num_threads: int | None = Field(None, ge=1)
    """Number of threads that the network uses. By default, it uses all cores."""
    drain_s: float = Field(0.0, ge=0)
    """Time for which the service still accepts requests after it has been asked to stop, in
    seconds. During this time /readyz answers 503, so that a load balancer can send its requests to
    other instances."""
    shutdown_s: int = Field(30, ge=0)
    """Time that unfinished requests have after `drain_s`, in seconds. After this time, they
    are cancelled."""
    access_log: bool = False
    """Write a log line for every request."""

    @model_validator(mode="after")
    def _one_request_must_fit(self) -> Self:
        if self.max_waiting < self.max_images:
            raise ValueError(
                f"max_waiting ({self.max_waiting}) must be at least max_images "
                f"({self.max_images}); otherwise a request of that size is always refused"
            )
        return self


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
        raise UserError(f"{name}: {reason}; got {first['input']!r}") from error
