"""The base class of the errors that users read."""


class UserError(Exception):
    """A request that cannot be fulfilled.

    `str(error)` is one line: what was expected, what was received, what to do next. Commands print
    that line and exit with 1. The service turns it into a problem response.
    """
