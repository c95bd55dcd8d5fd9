"""The command line ``tidegate``.

Every command lives in a module of its own, named in ``COMMANDS`` and imported only when it is asked for, so
that ``tidegate --help`` stays fast.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from tidegate_server.cli.exits import Exit

# name: (module, attribute, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "analyze": ("tidegate_server.cli.analyze", "analyze", "Judge the series in a CSV or Parquet file."),
    "auth": ("tidegate_server.cli.auth", "auth", "Who may do what: switch it on, read the audit log."),
    "demo": ("tidegate_server.cli.demo", "demo", "A harmless and a faulty rollout, judged live."),
    "evaluate": ("tidegate_server.cli.evaluate", "evaluate", "Ask a gate whether a rollout may go on."),
    "evaluation": ("tidegate_server.cli.evaluation", "evaluation", "Look at evaluations, override, label."),
    "gate": ("tidegate_server.cli.gate", "gate", "Stored gates: apply a file, get, list, delete."),
    "monitor": ("tidegate_server.cli.monitor", "monitor", "Monitors and their states; downtimes."),
    "serve": ("tidegate_server.cli.serve", "serve", "Run the server."),
    "store": ("tidegate_server.cli.store", "store", "The server's store: migrate, export, delete, sweep."),
    "token": ("tidegate_server.cli.auth", "token", "Bearer tokens: create, list, revoke."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command, or return None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        _accept_debug(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        ctx.find_root().meta["tidegate.debug"] = True
    return value


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )


def _accept_debug(command: click.Command) -> None:
    """Let ``--debug`` stand after the command as well as before it."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _accept_debug(child)
    elif not any(parameter.name == "debug" for parameter in command.params):
        command.params.append(_debug_option())


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"tidegate {version('tidegate')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    params=[_debug_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 proceed, 1 halt, 2 usage, 3 hold, 4 could not look.",
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show it.")
def root() -> None:
    """Deployment gates with statistics: metric series in, a verdict with evidence out."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (``tidegate_server.cli.exits``); never a traceback.

    ``argv`` is the arguments without the program's name; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    context: click.Context | None = None
    try:
        context = root.make_context("tidegate", arguments)
        with context:
            answer = root.invoke(context)
            return int(answer) if isinstance(answer, int) else Exit.PROCEED
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away. What is still in its buffer must not complain when Python ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.COULD_NOT_LOOK
    except click.UsageError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        _trace(context)
        click.echo(f"tidegate: {error.format_message()}", err=True)
        return Exit.COULD_NOT_LOOK
    except Exception as error:
        if not _trace(context):
            what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            click.echo(f"tidegate: internal error, {what} (run with --debug for details)", err=True)
        return Exit.COULD_NOT_LOOK


def _trace(context: click.Context | None) -> bool:
    """Show the traceback of the error at hand if the user asked for it."""
    if context is None or not context.meta.get("tidegate.debug"):
        return False
    traceback.print_exc()
    return True
