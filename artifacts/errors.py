"""The two kinds of failure that the command line reports without a traceback."""


class InputError(ValueError):
    """Bad usage or input. The message says what, got, allowed and the next step; exit code 2."""


class GateError(RuntimeError):
    """A check of our own output failed. The message says by how much; exit code 1."""
