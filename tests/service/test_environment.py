"""Variables that are not settings, and the address that the health check reads from them."""

import pytest

from service.environment import listening_address, remarks
from service.settings import Settings, read_settings
from training.errors import UserError

OF_KUBERNETES = {
    "LOOKALIKE_PORT": "tcp://10.96.0.10:8000",
    "LOOKALIKE_PORT_8000_TCP": "tcp://10.96.0.10:8000",
    "LOOKALIKE_PORT_8000_TCP_ADDR": "10.96.0.10",
    "LOOKALIKE_PORT_8000_TCP_PORT": "8000",
    "LOOKALIKE_PORT_8000_TCP_PROTO": "tcp",
    "LOOKALIKE_SERVICE_HOST": "10.96.0.10",
    "LOOKALIKE_SERVICE_PORT": "8000",
    "LOOKALIKE_SERVICE_PORT_HTTP": "8000",
    "LOOKALIKE_CANARY_PORT": "tcp://10.96.0.11:8000",
    "LOOKALIKE_CANARY_SERVICE_HOST": "10.96.0.11",
}


def remarks_on(**environment: str) -> list[str]:
    return remarks(environment, Settings.model_fields)


def test_the_variables_of_kubernetes_give_one_remark_about_the_port() -> None:
    (remark,) = remarks(OF_KUBERNETES, Settings.model_fields)
    assert remark.startswith("LOOKALIKE_PORT=tcp://10.96.0.10:8000 is ignored")
    assert "--port" in remark


@pytest.mark.parametrize("variable", ["LOOKALIKE_MAX_WAITNG", "lookalike_max_waitng"])
def test_a_misspelt_setting_is_named_without_its_value(variable: str) -> None:
    (remark,) = remarks_on(**{variable: "secret"})
    assert remark.startswith(f"{variable} is ignored")
    assert "did you mean LOOKALIKE_MAX_WAITING?" in remark
    assert "secret" not in remark


def test_other_variables_give_no_remark() -> None:
    assert not remarks_on(
        LOOKALIKE_MAX_K="7",
        lookalike_max_k="7",
        LOOKALIKE_PORT="9000",
        LOOKALIKE_WEIGHTS_URL="/weights",
        LOOKALIKE_CACHE="/cache",
        LOOKALIKE_COLOUR_OF_THE_DOOR="red",
        MAX_WAITNG="1",
    )


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LOOKALIKE_PORT": "9000"},
        {"LOOKALIKE_HOST": "0.0.0.0", "lookalike_port": "9000"},
        OF_KUBERNETES,
    ],
)
def test_the_health_check_reads_the_same_address_as_the_service(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("LOOKALIKE_HOST", "LOOKALIKE_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert listening_address(environment) == (settings.host, settings.port)


def test_a_port_that_is_not_a_number_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"LOOKALIKE_PORT: .*'http'"):
        listening_address({"LOOKALIKE_PORT": "http"})
