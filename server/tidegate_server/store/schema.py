"""The tables. Migrations make them; a test compares the two.

Times are microseconds since 1970 (names end in `_us`). Bodies are JSON text written by `codec`; what queries
filter or order by stands in columns beside it. JSON is kept as text because PostgreSQL's own JSON type
refuses NaN, and absent enums are 0, not NULL, so that "not FAIL" means the same here as in Python.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

_Micros = sa.BigInteger
# SQLite numbers rows by itself only in a column declared INTEGER.
_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")
# Ordered by code point, as SQLite does and Python does, whatever the locale of the PostgreSQL database.
_Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

gates = sa.Table(
    "gates",
    metadata,
    sa.Column("service", _Key, primary_key=True),
    sa.Column("environment", _Key, primary_key=True),
    sa.Column("identifier", _Key, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False, unique=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("create_us", _Micros, nullable=False),
    sa.Column("update_us", _Micros, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)

# Every revision of every gate, those of deleted gates too.
gate_revisions = sa.Table(
    "gate_revisions",
    metadata,
    sa.Column("sequence", _Serial, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("service", _Key, nullable=False),
    sa.Column("environment", _Key, nullable=False),
    sa.Column("identifier", _Key, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("uid", "revision"),
    sa.Index(None, "service", "environment", "identifier", "sequence"),
)

evaluations = sa.Table(
    "evaluations",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("service", _Key, nullable=False),
    sa.Column("environment", _Key, nullable=False),
    sa.Column("identifier", sa.Text, nullable=False),
    sa.Column("deployed_version", sa.Text, nullable=False),
    sa.Column("commit_id", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("dry_run", sa.Boolean, nullable=False),
    sa.Column("overridden", sa.Boolean, nullable=False),
    # Kinds of all labels, as ",1,3,".
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("verdict", sa.Integer, nullable=False),
    sa.Column("decision", sa.Integer, nullable=False),
    sa.Column("create_us", _Micros, nullable=False),
    sa.Column("end_us", _Micros),
    # A retry with the same id and fingerprint is answered with the evaluation of the first call.
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    # The same for pollers, with a life time: a rollout that is retried later gets an evaluation of its own.
    sa.Column("ensure_key", sa.Text, nullable=False),
    sa.Column("expire_us", _Micros),
    # Grows with every change of the evaluation: watchers and writers compare it.
    sa.Column("version", sa.BigInteger, nullable=False),
    # The gate as it was when the evaluation began; written once.
    sa.Column("gate", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    # What every rule has found so far, with its evidence.
    sa.Column("results", sa.Text, nullable=False),
    sa.Column("series_complete", sa.Boolean, nullable=False),
    sa.Column("watches_monitors", sa.Boolean, nullable=False),
    # When the engine must look again; absent once the evaluation is through.
    sa.Column("due_us", _Micros),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_us", _Micros),
    # Grows with every claim and every write from outside the engine: a tick is stored only under the number
    # it claimed.
    sa.Column("fence", sa.BigInteger, nullable=False),
    # Grows with every write of series: a tick that has not seen the newest leaves the evaluation due.
    sa.Column("inputs", sa.BigInteger, nullable=False),
    # Numbers in all its blocks: a server takes so many and no more.
    sa.Column("points", sa.BigInteger, nullable=False, server_default="0"),
    # The store's clock at the last tick, and how far the evaluation's own time stands behind it.
    sa.Column("tick_us", _Micros),
    sa.Column("behind_us", sa.BigInteger, nullable=False),
    sa.Index(None, "create_us", "id"),
    sa.Index(None, "service", "environment", "create_us"),
    sa.Index(None, "end_us"),
    sa.Index(
        "ix_evaluations_due_us",
        "due_us",
        sqlite_where=sa.text("due_us IS NOT NULL"),
        postgresql_where=sa.text("due_us IS NOT NULL"),
    ),
    sa.Index(
        "ix_evaluations_request_id",
        "service",
        "environment",
        "request_id",
        unique=True,
        sqlite_where=sa.text("request_id <> ''"),
        postgresql_where=sa.text("request_id <> ''"),
    ),
    sa.Index(
        "ix_evaluations_ensure_key",
        "service",
        "environment",
        "ensure_key",
        sqlite_where=sa.text("ensure_key <> ''"),
        postgresql_where=sa.text("ensure_key <> ''"),
    ),
)

evaluation_blocks = sa.Table(
    "evaluation_blocks",
    metadata,
    sa.Column("evaluation_id", _Key, sa.ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("writer", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("receive_us", _Micros, nullable=False),
    sa.Column("header", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("evaluation_id", "writer", "sequence"),
)

monitors = sa.Table(
    "monitors",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("create_us", _Micros, nullable=False),
    sa.Column("update_us", _Micros, nullable=False),
    sa.Column("delete_us", _Micros),
    sa.Column("body", sa.Text, nullable=False),
)

# The newest stretch of every group. `seen_us` is when it was last confirmed.
monitor_groups = sa.Table(
    "monitor_groups",
    metadata,
    sa.Column("monitor_id", _Key, sa.ForeignKey("monitors.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("group_key", _Key, primary_key=True),
    sa.Column("tags", sa.Text, nullable=False),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("muted", sa.Boolean, nullable=False),
    sa.Column("start_us", _Micros, nullable=False),
    sa.Column("seen_us", _Micros, nullable=False),
    sa.Column("expire_us", _Micros),
    sa.Column("delete_us", _Micros),
)

# The stretches before it: each lasts until `until_us`, and is believed until `expire_us`.
monitor_spans = sa.Table(
    "monitor_spans",
    metadata,
    sa.Column("monitor_id", _Key, sa.ForeignKey("monitors.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("group_key", _Key, primary_key=True),
    sa.Column("start_us", _Micros, primary_key=True, autoincrement=False),
    sa.Column("until_us", _Micros, nullable=False, index=True),
    sa.Column("state", sa.Integer, nullable=False),
    sa.Column("muted", sa.Boolean, nullable=False),
    sa.Column("seen_us", _Micros, nullable=False),
    sa.Column("expire_us", _Micros),
)

downtimes = sa.Table(
    "downtimes",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("start_us", _Micros, nullable=False),
    sa.Column("end_us", _Micros, index=True),
    sa.Column("body", sa.Text, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", _Key, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("create_us", _Micros, nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index(
        "ix_tokens_name",
        "name",
        unique=True,
        sqlite_where=sa.text("NOT revoked"),
        postgresql_where=sa.text("NOT revoked"),
    ),
)

settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# Triggers refuse to change or remove a row.
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("sequence", _Serial, primary_key=True),
    sa.Column("create_us", _Micros, nullable=False, index=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("service", _Key, nullable=False),
    sa.Column("environment", _Key, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
