"""What a server keeps, and the engine that works on it: opened, run and closed together."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tidegate_server.config import Config
from tidegate_server.engine import Engine, EngineHealth, Looks
from tidegate_server.errors import ConfigError, RequestError, StartupError
from tidegate_server.log import Log
from tidegate_server.pool import AnalysisPool
from tidegate_server.store import Retention, Store, sweep

_DAY = 86_400.0
_SWEEP_SECONDS = 3600.0
_RESTART_SECONDS = 1.0

log = Log("store")


class Durable:
    """The store and the engine of one server.

    Parameters
    ----------
    config:
        The settings; without a ``store_url`` everything is kept in a temporary file and gone at the end.
    pool:
        The analysis workers.
    on_health:
        Called when the store stops answering, and when it answers again.

    Raises
    ------
    ConfigError
        When the store's URL cannot be used.
    """

    def __init__(
        self, config: Config, pool: AnalysisPool, on_health: Callable[[EngineHealth], None] = lambda _: None
    ) -> None:
        """Wire the parts; nothing is opened yet."""
        self._folder: Path | None = None
        url = config.store_url
        if not url:
            self._folder = Path(tempfile.mkdtemp(prefix="tidegate-"))
            url = str(self._folder / "tidegate.db")
        try:
            self.store = Store(url, lease_seconds=config.lease_seconds)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.engine = Engine(
            self.store,
            Looks(self.store.evaluations, self.store.monitors, pool),
            concurrency=config.max_looks,
            on_health=on_health,
        )
        self._retention = Retention(config.retention_days * _DAY, config.state_retention_days * _DAY)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Bring the store to this version's schema, and start the engine.

        Raises
        ------
        StartupError
            When the store cannot be opened or was written by a later version.
        """
        try:
            await self.store.migrate()
        except RequestError as error:
            await self.store.close()
            raise StartupError(f"store_url: {error.message}") from None
        self._tasks = [
            asyncio.create_task(self._run_engine(), name="engine"),
            asyncio.create_task(self._sweep(), name="retention"),
        ]

    async def _run_engine(self) -> None:
        """Run the engine, and start it again should a defect ever end it: evaluations must not wait for a person."""
        while not self._stopping:
            try:
                await self.engine.run()
            except Exception as error:
                log.error("the engine ended and is started again", exception=error)
                await asyncio.sleep(_RESTART_SECONDS)

    async def _sweep(self) -> None:
        while True:
            try:
                now = await self.store.database.read_clock() / 1e6
                gone = await sweep(self.store, now, self._retention)
                if gone:
                    log.info("swept", deleted=gone)
            except RequestError as error:
                log.warning("not swept", problem=error.message)
            await asyncio.sleep(_SWEEP_SECONDS)

    async def stop(self) -> None:
        """End the engine, give back what it was working on, and close the store."""
        self._stopping = True
        self.engine.stop()
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.close()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, self._folder)
