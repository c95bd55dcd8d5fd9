"""The store: what is configured, evaluated and watched, on SQLite or PostgreSQL.

`Store` opens one; its parts implement the ports of the domain (`tidegate_server.gates.ports`).
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate_server.store.audit import SqlAuditLog, SqlTokens
from tidegate_server.store.database import Database, host_clock
from tidegate_server.store.evaluations import SqlEvaluations, SqlFeed
from tidegate_server.store.gates import SqlGates
from tidegate_server.store.migrate import migrate, migrate_database
from tidegate_server.store.monitors import SqlMonitors
from tidegate_server.store.retention import Retention, sweep
from tidegate_server.store.work import Claim, SqlWork, Tick

__all__ = ["Claim", "Database", "Retention", "Store", "Tick", "migrate", "sweep"]


class Store:
    """Everything that is kept, behind the ports of the domain.

    Args:
        url: a file name, `sqlite:///file` or `postgresql://...`.
        lease_seconds: how long an evaluation that a dead replica was working on waits before another takes
            it.
        longest_wait_seconds: no evaluation waits longer between two looks.
        poll_seconds: how often watchers look for what other replicas changed.
        clock: the host's clock in microseconds, replaced in tests.
        now_sql: the server's clock in microseconds, replaced in tests; PostgreSQL only.
        pool_size: connections that are kept.

    Raises:
        ValueError: if the URL cannot be used; the message says what would be right.
    """

    def __init__(
        self,
        url: str,
        *,
        lease_seconds: float = 15.0,
        longest_wait_seconds: float = 300.0,
        poll_seconds: float = 1.0,
        clock: Callable[[], int] = host_clock,
        now_sql: str | None = None,
        pool_size: int = 8,
    ) -> None:
        """Opens nothing yet: connections are made when they are needed."""
        options = {} if now_sql is None else {"now_sql": now_sql}
        self.database = Database(url, clock=clock, pool_size=pool_size, **options)
        self.feed = SqlFeed(self.database, poll_seconds=poll_seconds)
        self.gates = SqlGates(self.database)
        self.evaluations = SqlEvaluations(self.database, self.feed)
        self.monitors = SqlMonitors(self.database)
        self.tokens = SqlTokens(self.database)
        self.audit = SqlAuditLog(self.database)
        self.work = SqlWork(
            self.database,
            self.feed,
            lease_us=round(lease_seconds * 1e6),
            longest_wait_us=round(longest_wait_seconds * 1e6),
        )

    async def migrate(self) -> None:
        """Brings the store to the schema of this version; see `migrate_database` for its errors."""
        await migrate_database(self.database)

    async def close(self) -> None:
        """Closes every connection; watchers run into their patience."""
        await self.feed.close()
        await self.database.close()
