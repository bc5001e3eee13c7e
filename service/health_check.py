"""The health check of the container: `python -m service.health_check` asks /readyz.

It reads the same variables as the service, and uses no proxy. The exit status is 0 if the service
accepts requests, and 1 otherwise.
"""

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

from service.environment import listening_address
from training.errors import UserError

TIMEOUT_S = 4.0
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address to ask if the service listens on all network interfaces."""


def check(environment: Mapping[str, str]) -> str:
    """Ask the service of this container, and return the first line of its answer.

    Raises UserError if the service does not accept requests.
    """
    host, port = listening_address(environment)
    connection = HTTPConnection(LOOPBACK.get(host, host), port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        content = response.read(1000).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise UserError(
            f"{host}, port {port}: no answer to GET /readyz: {error or type(error).__name__}"
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise UserError(f"GET /readyz was answered with status {response.status}: {content}")
    return f"GET /readyz was answered with status {response.status}"


if __name__ == "__main__":
    try:
        print(check(os.environ))
    except UserError as error:
        sys.exit(str(error))
