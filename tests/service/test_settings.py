"""Settings come from the environment, and a wrong setting is an error of one line."""

import json

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
    assert settings.precision == "auto"
    monkeypatch.setenv("LOOKALIKE_PRECISION", "int8")
    assert read_settings().precision == "int8"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_K", "many"),
        ("PORT", "70000"),
        ("MAX_BATCH", "0"),
        ("MAX_K", "5"),
        ("PRECISION", "int4"),
    ],
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


def test_the_port_of_kubernetes_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_PORT", "tcp://10.96.0.10:8000")
    monkeypatch.setenv("LOOKALIKE_SERVICE_HOST", "10.96.0.10")
    monkeypatch.setenv("LOOKALIKE_NEVER_HEARD_OF", "x")
    assert read_settings().port == 8000
    assert read_settings(port=9000).port == 9000


@pytest.mark.parametrize("name", ["allowed_origins", "forwarded_allow_ips"])
@pytest.mark.parametrize("form", ["comma", "json"])
def test_a_list_is_separated_by_commas_or_is_json(
    monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    values = ("https://a.example", "http://b.example:8080")
    if name == "forwarded_allow_ips":
        values = ("10.0.0.0/8", "::1")
    text = json.dumps(values) if form == "json" else f" {values[0]} ,{values[1]},"
    monkeypatch.setenv(f"LOOKALIKE_{name.upper()}", text)
    assert getattr(read_settings(), name) == values


def test_an_empty_list_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_ALLOWED_ORIGINS", "")
    monkeypatch.setenv("LOOKALIKE_FORWARDED_ALLOW_IPS", "")
    settings = read_settings()
    assert settings.allowed_origins == settings.forwarded_allow_ips == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOWED_ORIGINS", "https://a.example/"),
        ("ALLOWED_ORIGINS", "https://a.example/page"),
        ("ALLOWED_ORIGINS", "a.example"),
        ("ALLOWED_ORIGINS", "*, https://a.example"),
        ("ALLOWED_ORIGINS", "https://*.example"),
        ("ALLOWED_ORIGINS", "null"),
        ("ALLOWED_ORIGINS", '["https://a.example"'),
        ("FORWARDED_ALLOW_IPS", "proxy"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1/8"),
        ("FORWARDED_ALLOW_IPS", "*, 10.0.0.1"),
        ("ROOT_PATH", "lookalike"),
        ("ROOT_PATH", "/a b"),
        ("ROOT_PATH", '/"><script>'),
        ("ROOT_PATH", "//evil.example"),
        ("ROOT_PATH", "/a/../b"),
        ("ROOT_PATH", "/a\n"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("KEEP_ALIVE_S", "0"),
    ],
)
def test_a_setting_of_another_form_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    with pytest.raises(UserError, match=f"LOOKALIKE_{name}: ") as error:
        read_settings()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("/lookalike", "/lookalike"), ("/a/b-c_d.e~f/", "/a/b-c_d.e~f"), ("/", ""), ("", "")],
)
def test_a_root_path_has_no_slash_at_its_end(value: str, expected: str) -> None:
    assert read_settings(root_path=value).root_path == expected


def test_the_level_of_the_log_may_be_in_capitals() -> None:
    assert read_settings(log_level="INFO").log_level == "info"


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("name", ["WRITE_KEY", "READ_KEY"])
@pytest.mark.parametrize("value", ["", " ", "two words", "new\nline", "ümlaut", "\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An empty key would let everybody in who sends no key."""
    monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    with pytest.raises(UserError) as error:
        read_settings()
    text = str(error.value)
    assert text.startswith(f"LOOKALIKE_{name}: must be a key of visible ASCII characters")
    assert "\n" not in text
    if value.strip():
        assert value not in text
    assert error.value.__cause__ is None


def test_keys_do_not_appear_in_the_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_WRITE_KEY", "open-sesame")
    settings = read_settings(read_key="let-me-in")
    assert settings.write_key is not None
    assert settings.write_key.get_secret_value() == "open-sesame"
    assert "sesame" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert "let-me-in" not in f"{settings!r} {settings} {settings.model_dump_json()}"
