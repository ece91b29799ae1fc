"""The one exception that speaks to the user."""


class UserError(Exception):
    """A mistake the user can mend: its message names the thing and the remedy.

    `run.py` prints it as one line without a traceback; `debug=true` shows the traceback.
    """
