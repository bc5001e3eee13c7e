"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A request that cannot be met. `str(error)` is one line: what was required, what arrived, what to do next.

    Commands print that line and exit with 1; the service turns it into a problem response.
    """
