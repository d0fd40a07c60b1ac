"""The one kind of error that is the user's to mend: shown as a message, never as a traceback."""


class InputError(ValueError):
    """Bad input: says what happened, the offending value and what to do. The command line exits with 2 on it."""
