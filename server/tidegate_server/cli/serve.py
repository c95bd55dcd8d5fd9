"""``tidegate serve``: run the server. Every setting of the server is an option."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from typing import Any, get_args, get_type_hints

import click

from tidegate_server.cli.exits import Exit
from tidegate_server.config import PREFIX, Config
from tidegate_server.errors import ConfigError


def descriptions() -> dict[str, str]:
    """Return what each setting means, from the docstring of ``Config``."""
    text = inspect.getdoc(Config) or ""
    section = text.partition("Parameters\n----------\n")[2].partition("\n\nRaises")[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", section):
        names, _, meaning = entry.partition(":\n")
        for name in names.split(","):
            found[name.strip()] = " ".join(meaning.replace("``", "").split())
    return found


def options() -> list[click.Option]:
    """Return one option per setting; none has a default of its own, so that the environment shows through."""
    hints = get_type_hints(Config)
    meanings = descriptions()
    made = []
    for field in dataclasses.fields(Config):
        flag = "--" + field.name.replace("_", "-")
        hint = hints[field.name]
        words = [word for word in get_args(hint) if isinstance(word, str)]
        kind: Any = click.Choice(words) if words else {int: int, float: float}.get(hint, str)
        default = "" if field.default in (None, dataclasses.MISSING) else f" Default: {field.default}."
        made.append(
            click.Option(
                [f"{flag}/--no-{flag[2:]}" if hint is bool else flag, field.name],
                type=bool if hint is bool else kind,
                default=None,
                metavar=None if words or hint is bool else _metavar(hint),
                help=f"{meanings.get(field.name, '')}{default}",
            )
        )
    return made


def _metavar(hint: Any) -> str:
    if hint in (int, float):
        return "NUMBER"
    return "FILE" if "Path" in str(hint) else "TEXT"


def run_server(**settings: Any) -> int:
    """Run the server until SIGTERM or Ctrl-C, then drain.

    Every option can also be set in the environment: --max-series as TIDEGATE_MAX_SERIES.
    """
    from pathlib import Path

    hints = get_type_hints(Config)
    given = {
        name: Path(value) if isinstance(value, str) and "Path" in str(hints[name]) else value
        for name, value in settings.items()
    }
    try:
        config = Config.from_env(os.environ, **given)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    from tidegate_server.app import run

    code = run(config)
    # 1 means halt here, whatever it means elsewhere.
    return Exit.COULD_NOT_LOOK if code == Exit.HALT else code


serve = click.Command(
    "serve",
    callback=run_server,
    params=list(options()),
    help=f"{inspect.getdoc(run_server)}",
    epilog=f"The environment variable of a setting is {PREFIX} and its name in capitals.",
)
