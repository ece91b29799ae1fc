"""The exceptions that speak to the user."""


class UserError(Exception):
    """A mistake the user can mend: its message names the thing and the remedy.

    `run.py` prints it as one line without a traceback; `debug=true` shows the traceback.
    """

    exit_code = 2


class OutputError(UserError):
    """Results could not be written (a full disk, a folder without permission)."""

    exit_code = 1


class BusyError(UserError):
    """Another process is at work in the results folder."""

    exit_code = 1


class DeviceMemoryError(UserError):
    """Not even one search fits the device's memory."""

    def __init__(self) -> None:
        super().__init__(
            "the device's memory does not hold one search; choose a smaller generator, or "
            "trainer=cpu"
        )
