"""The errors a user may meet."""


class InputError(ValueError):
    """Something the user gave (a file, a config field, a flag, an id) cannot be used.

    The message is one line: it names the file and line, field or flag, says what
    is wrong and what would be right. Launchers print it and exit with code 2.
    """

    def __init__(self, message: object) -> None:
        # Names that are quoted may break lines.
        super().__init__(" ".join(str(message).splitlines()))


class DivergedError(RuntimeError):
    """Training reached a loss that is not a finite number. Launchers exit with code 1."""
