"""``tidegate store``: the server's store itself, whether a server is running or not.

Like ``tidegate auth`` these commands open the store: who may read and write it needs no token.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate_server.cli.auth import _audit, _store_option, _with_store
from tidegate_server.cli.exits import CouldNotLookError, confirm

if TYPE_CHECKING:
    from tidegate_server.store import Store

_DAY = 86_400.0


def _id(name: str) -> str:
    """Return the id in ``evaluations/<id>``, or the id itself."""
    return name.removeprefix("evaluations/")


@click.group()
def store() -> None:
    """The server's store: migrate, export, delete, sweep."""


@store.command()
@_store_option
def migrate(store_url: str | None) -> None:
    """Bring the store to this version's schema. A server does so by itself when it starts."""

    async def work(opened: Store) -> str:
        return opened.database.url.render_as_string(hide_password=True)

    click.echo(f"{_with_store(store_url, work)} has the schema of this version")


@store.command()
@click.argument("evaluation")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_store_option
def export(evaluation: str, folder: Path, store_url: str | None) -> None:
    """Write an evaluation with its series and evidence as Parquet files into a folder."""
    from tidegate_server.store import export as parquet

    async def work(opened: Store) -> list[Path]:
        found = await opened.evaluations.get(_id(evaluation))
        return parquet.write(folder, found, await opened.evaluations.blocks(found.id))

    try:
        files = _with_store(store_url, work)
    except (ModuleNotFoundError, OSError) as error:
        raise CouldNotLookError(str(error)) from None
    for file in files:
        click.echo(str(file))


@store.command()
@click.argument("evaluations", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_store_option
def delete(evaluations: tuple[str, ...], yes: bool, store_url: str | None) -> None:
    """Delete evaluations with their series, whatever their age. The audit log keeps that they were there."""
    if not yes:
        confirm(f"Delete {len(evaluations)} evaluations and their series for good?")

    async def work(opened: Store) -> None:
        for name in evaluations:
            await opened.evaluations.delete(_id(name), _audit("evaluation.delete", f"evaluations/{_id(name)}"))

    _with_store(store_url, work)
    click.echo(f"deleted {len(evaluations)}")


@store.command()
@click.option("--days", default=90.0, show_default=True, help="Age of evaluations that go; labelled ones stay.")
@click.option("--state-days", default=30.0, show_default=True, help="Age of monitor states that go.")
@_store_option
def sweep(days: float, state_days: float, store_url: str | None) -> None:
    """Delete what is old now. A server does so by itself once an hour."""
    from tidegate_server.store import Retention
    from tidegate_server.store import sweep as sweep_store

    for option, value in (("--days", days), ("--state-days", state_days)):
        if not value >= 1:
            raise click.UsageError(f"{option}: must be at least 1, not {value:g}")

    async def work(opened: Store) -> int:
        return await sweep_store(opened, time.time(), Retention(days * _DAY, state_days * _DAY))

    click.echo(f"deleted {_with_store(store_url, work)}")
