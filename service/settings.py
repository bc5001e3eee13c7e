"""What can be set about the service: each field by an environment variable, LOOKALIKE_ and its name in capitals."""

import os
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from training.data.images import MAX_PIXELS
from training.errors import UserError


class Settings(BaseSettings):
    """The service's settings; `read_settings` makes them with errors for people."""

    model_config = SettingsConfigDict(
        env_prefix="LOOKALIKE_", frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for every network this machine is in."""
    port: int = Field(8000, ge=0, le=65535)
    """The port to listen on; 0 takes any that is free."""
    max_image_bytes: int = Field(20_000_000, ge=1)
    """The largest image file accepted."""
    max_request_bytes: int = Field(64_000_000, ge=1)
    """The largest request body accepted, checked while it arrives."""
    max_images: int = Field(16, ge=1)
    """The most images in one request."""
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    """The most pixels of one image, width x height, checked before it is decoded."""
    max_k: int = Field(100, ge=6)
    """The most classes or matches that one query may ask for; not less than its default."""
    max_items: int = Field(1000, ge=100)
    """The most items that one page of GET /items may list; not less than its default."""
    max_batch: int = Field(32, ge=1)
    """The most images that go through the network together."""
    max_waiting: int = Field(128, ge=1)
    """The most images, over all requests, that are being decoded or wait for the network; one more is answered with 429."""
    num_decoders: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """How many images are decoded, and how many searches run, at the same time."""
    num_threads: int | None = Field(None, ge=1)
    """The threads of the network; as many as there are cores if not set."""
    drain_s: float = Field(0.0, ge=0)
    """How long, once asked to stop, the service still takes requests while /readyz says 503, so that a load balancer can turn away."""
    shutdown_s: int = Field(30, ge=0)
    """How long requests under way may then take before they are cut off."""
    access_log: bool = False
    """Whether to log a line for every request."""

    @model_validator(mode="after")
    def _one_request_must_fit(self) -> Self:
        if self.max_waiting < self.max_images:
            raise ValueError(
                f"max_waiting ({self.max_waiting}) must be at least max_images ({self.max_images}): a full request could never be taken"
            )
        return self


def read_settings(**given: Any) -> Settings:
    """The settings from the environment, with those given here before them; raises UserError."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(f"LOOKALIKE_{part}".upper() for part in first["loc"][:1]) or "settings"
        raise UserError(
            f"{name}: {first['msg'].removeprefix('Value error, ')}; got {first['input']!r}"
            if first["loc"]
            else first["msg"]
        ) from error
