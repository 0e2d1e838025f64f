"""The one error class of the package."""


class ModtfError(ValueError):
    """Bad input: the message says what was given, what is possible and what to do."""
