"""Exit codes of the command line and the error that carries a sentence to its user."""

from __future__ import annotations

import enum
import sys
from typing import Any

import click


class Exit(enum.IntEnum):
    """What the exit code of ``tidegate`` says to a script."""

    PROCEED = 0
    HALT = 1
    USAGE = 2
    HOLD = 3
    COULD_NOT_LOOK = 4
    INTERRUPTED = 130


class RefusedError(click.UsageError):
    """What was asked for is wrong: in a file, or by what the server knows. How to use the command would not
    help."""

    def show(self, file: Any = None) -> None:
        """Print the message alone, one fault a line."""
        click.echo(f"tidegate: {self.format_message()}", file=file, err=file is None)


class CouldNotLookError(click.ClickException):
    """Something kept Tidegate from looking; the message is one sentence for the user."""

    exit_code = Exit.COULD_NOT_LOOK


def confirm(question: str) -> None:
    """Ask before something is deleted.

    Raises
    ------
    click.UsageError
        When there is nobody to ask, or the answer is no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is nobody to ask; say --yes")
    if not click.confirm(question):
        raise RefusedError("nothing was changed")
