"""Settings come from the environment, and a wrong setting is an error of one line."""

import pytest

from service.settings import Settings, read_settings
from training.errors import UserError


def test_a_setting_comes_from_the_environment_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOOKALIKE_MAX_K", "7")
    monkeypatch.setenv("LOOKALIKE_PORT", "9000")
    settings = read_settings(port=0)
    assert (settings.max_k, settings.port) == (7, 0)


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_K", "many"), ("PORT", "70000"), ("MAX_BATCH", "0"), ("MAX_K", "5")]
)
def test_a_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    with pytest.raises(UserError, match=f"LOOKALIKE_{name}: .*{value}") as error:
        read_settings()
    assert "\n" not in str(error.value)


def test_as_many_images_must_be_allowed_to_wait_as_one_request_may_have() -> None:
    with pytest.raises(UserError, match="max_waiting"):
        read_settings(max_images=16, max_waiting=8)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
