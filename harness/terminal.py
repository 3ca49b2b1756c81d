"""A console on standard output, for the screens of every command."""

from rich.console import Console


class Terminal(Console):
    """Rich's console, without guesses at what is a number, and with pipes that may be closed."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Leave it to harness/cli.py: by itself rich exits with 1, which is a verdict of ours."""
        raise BrokenPipeError
