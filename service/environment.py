"""The variables LOOKALIKE_...: what can be read from them without pydantic, and which are ignored.

In Kubernetes, a Service with the name `lookalike` puts variables such as LOOKALIKE_PORT and
LOOKALIKE_SERVICE_HOST into every container of its namespace. They must not stop the service.
"""

import difflib
import re
from collections.abc import Iterable, Mapping

from training.errors import UserError

PREFIX = "LOOKALIKE_"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
OTHER_VARIABLES = frozenset({"CACHE", "WEIGHTS_URL", "SHARED_DATA", "CI_WITHOUT_BROWSER"})
"""Variables that other parts of the project read, without the prefix."""
SIMILARITY = 0.8
"""Minimum ratio of difflib at which a variable counts as a misspelt setting."""

_PORT_OF_KUBERNETES = re.compile(r"(?:tcp|udp|sctp)://")
_NAME_OF_KUBERNETES = re.compile(
    r"(?:.+_)?(?:PORT|SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_.+)?)"
)


def is_port_of_kubernetes(value: object) -> bool:
    """Whether Kubernetes has set this port: `tcp://10.96.0.10:8000`, not a number."""
    return isinstance(value, str) and bool(_PORT_OF_KUBERNETES.match(value))


def listening_address(environment: Mapping[str, str]) -> tuple[str, int]:
    """The host and the port on which the service listens, if no command-line option changes them.

    The health check runs every few seconds, so it does not import pydantic to find them. Raises
    UserError if the port is not a number.
    """
    variables = {name.upper(): value for name, value in environment.items()}
    port: str | int = variables.get(f"{PREFIX}PORT", DEFAULT_PORT)
    if is_port_of_kubernetes(port):
        port = DEFAULT_PORT
    try:
        return variables.get(f"{PREFIX}HOST", DEFAULT_HOST), int(port)
    except ValueError as error:
        raise UserError(f"{PREFIX}PORT: must be a number; got {port!r}") from error


def remarks(environment: Mapping[str, str], settings: Iterable[str]) -> list[str]:
    """One line for each variable that is ignored although it looks like a setting.

    `settings` are the names of the settings, for example `max_k`. The lines do not contain the
    values of misspelt variables, because a value may be a key.
    """
    names = [name.upper() for name in settings]
    lines = []
    for variable, value in sorted(environment.items()):
        if not variable.upper().startswith(PREFIX):
            continue
        name = variable.upper().removeprefix(PREFIX)
        if name == "PORT" and is_port_of_kubernetes(value):
            lines.append(
                f"{variable}={value} is ignored, because Kubernetes sets it for a Service with "
                "the name lookalike; to choose the port, pass --port"
            )
        elif name not in names and not _is_known(name):
            similar = difflib.get_close_matches(name, names, n=1, cutoff=SIMILARITY)
            lines += [
                f"{variable} is ignored, because there is no such setting; "
                f"did you mean {PREFIX}{close}?"
                for close in similar
            ]
    return lines


def _is_known(name: str) -> bool:
    """Whether another part of the project, or Kubernetes, uses this variable."""
    return name in OTHER_VARIABLES or bool(_NAME_OF_KUBERNETES.fullmatch(name))
