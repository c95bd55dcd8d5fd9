"""Where text goes: results to standard output, progress to standard error, colour only on a terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console

# Of text that is not for a terminal; wide enough for the table of findings.
FILE_WIDTH = 160


class _Piped(Console):
    """Leaves it to the command line what a reader that went away means; rich would end with 1, which is HALT."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def out() -> Console:
    """Return the console of results."""
    return _console(sys.stdout)


def err() -> Console:
    """Return the console of progress and complaints."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # NO_COLOR is honoured by rich.
    on_terminal = stream.isatty()
    return _Piped(
        file=stream,
        force_terminal=on_terminal,
        highlight=False,
        emoji=False,
        width=None if on_terminal else FILE_WIDTH,
    )
