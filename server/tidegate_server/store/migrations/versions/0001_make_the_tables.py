"""Make the tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

SQLITE_TRIGGERS = """
CREATE TRIGGER audit_log_{event} BEFORE {event} ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""
POSTGRESQL_FUNCTION = """
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$
"""
POSTGRESQL_TRIGGER = """
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""


def upgrade() -> None:
    """Makes the step."""
    op.create_table(
        "audit_log",
        sa.Column("sequence", SERIAL, nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("environment", KEY, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_create_us"), "audit_log", ["create_us"], unique=False)
    op.create_table(
        "downtimes",
        sa.Column("id", KEY, nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_downtimes")),
    )
    op.create_index(op.f("ix_downtimes_end_us"), "downtimes", ["end_us"], unique=False)
    op.create_table(
        "evaluations",
        sa.Column("id", KEY, nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("environment", KEY, nullable=False),
        sa.Column("identifier", sa.Text(), nullable=False),
        sa.Column("deployed_version", sa.Text(), nullable=False),
        sa.Column("commit_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("overridden", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.Integer(), nullable=False),
        sa.Column("decision", sa.Integer(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("ensure_key", sa.Text(), nullable=False),
        sa.Column("expire_us", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("gate", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("results", sa.Text(), nullable=False),
        sa.Column("series_complete", sa.Boolean(), nullable=False),
        sa.Column("watches_monitors", sa.Boolean(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_us", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("inputs", sa.BigInteger(), nullable=False),
        sa.Column("tick_us", sa.BigInteger(), nullable=True),
        sa.Column("behind_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_create_us_id"), "evaluations", ["create_us", "id"], unique=False)
    op.create_index(
        "ix_evaluations_due_us",
        "evaluations",
        ["due_us"],
        unique=False,
        sqlite_where=sa.text("due_us IS NOT NULL"),
        postgresql_where=sa.text("due_us IS NOT NULL"),
    )
    op.create_index(op.f("ix_evaluations_end_us"), "evaluations", ["end_us"], unique=False)
    op.create_index(
        "ix_evaluations_ensure_key",
        "evaluations",
        ["service", "environment", "ensure_key"],
        unique=False,
        sqlite_where=sa.text("ensure_key <> ''"),
        postgresql_where=sa.text("ensure_key <> ''"),
    )
    op.create_index(
        "ix_evaluations_request_id",
        "evaluations",
        ["service", "environment", "request_id"],
        unique=True,
        sqlite_where=sa.text("request_id <> ''"),
        postgresql_where=sa.text("request_id <> ''"),
    )
    op.create_index(
        op.f("ix_evaluations_service_environment_create_us"),
        "evaluations",
        ["service", "environment", "create_us"],
        unique=False,
    )
    op.create_table(
        "gate_revisions",
        sa.Column("sequence", SERIAL, nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("environment", KEY, nullable=False),
        sa.Column("identifier", KEY, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_gate_revisions")),
        sa.UniqueConstraint("uid", "revision", name=op.f("uq_gate_revisions_uid_revision")),
    )
    op.create_index(
        op.f("ix_gate_revisions_service_environment_identifier_sequence"),
        "gate_revisions",
        ["service", "environment", "identifier", "sequence"],
        unique=False,
    )
    op.create_table(
        "gates",
        sa.Column("service", KEY, nullable=False),
        sa.Column("environment", KEY, nullable=False),
        sa.Column("identifier", KEY, nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("service", "environment", "identifier", name=op.f("pk_gates")),
        sa.UniqueConstraint("uid", name=op.f("uq_gates_uid")),
    )
    op.create_table(
        "monitors",
        sa.Column("id", KEY, nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.Column("delete_us", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_monitors")),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_settings")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_index(
        "ix_tokens_name",
        "tokens",
        ["name"],
        unique=True,
        sqlite_where=sa.text("NOT revoked"),
        postgresql_where=sa.text("NOT revoked"),
    )
    op.create_table(
        "evaluation_blocks",
        sa.Column("evaluation_id", KEY, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("receive_us", sa.BigInteger(), nullable=False),
        sa.Column("header", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
            name=op.f("fk_evaluation_blocks_evaluation_id_evaluations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "position", name=op.f("pk_evaluation_blocks")),
        sa.UniqueConstraint(
            "evaluation_id",
            "writer",
            "sequence",
            name=op.f("uq_evaluation_blocks_evaluation_id_writer_sequence"),
        ),
    )
    op.create_table(
        "monitor_groups",
        sa.Column("monitor_id", KEY, nullable=False),
        sa.Column("group_key", KEY, nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.Column("expire_us", sa.BigInteger(), nullable=True),
        sa.Column("delete_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["monitor_id"],
            ["monitors.id"],
            name=op.f("fk_monitor_groups_monitor_id_monitors"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("monitor_id", "group_key", name=op.f("pk_monitor_groups")),
    )
    op.create_table(
        "monitor_spans",
        sa.Column("monitor_id", KEY, nullable=False),
        sa.Column("group_key", KEY, nullable=False),
        sa.Column("start_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.Column("expire_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["monitor_id"],
            ["monitors.id"],
            name=op.f("fk_monitor_spans_monitor_id_monitors"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("monitor_id", "group_key", "start_us", name=op.f("pk_monitor_spans")),
    )
    op.create_index(op.f("ix_monitor_spans_until_us"), "monitor_spans", ["until_us"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(SQLITE_TRIGGERS.format(event=event))
    else:
        op.execute(POSTGRESQL_FUNCTION)
        op.execute(POSTGRESQL_TRIGGER)


def downgrade() -> None:
    """Undoes it."""
    op.drop_index(op.f("ix_monitor_spans_until_us"), table_name="monitor_spans")
    op.drop_table("monitor_spans")
    op.drop_table("monitor_groups")
    op.drop_table("evaluation_blocks")
    op.drop_index(
        "ix_tokens_name",
        table_name="tokens",
        sqlite_where=sa.text("NOT revoked"),
        postgresql_where=sa.text("NOT revoked"),
    )
    op.drop_table("tokens")
    op.drop_table("settings")
    op.drop_table("monitors")
    op.drop_table("gates")
    op.drop_index(op.f("ix_gate_revisions_service_environment_identifier_sequence"), table_name="gate_revisions")
    op.drop_table("gate_revisions")
    op.drop_index(op.f("ix_evaluations_service_environment_create_us"), table_name="evaluations")
    op.drop_index(
        "ix_evaluations_request_id",
        table_name="evaluations",
        sqlite_where=sa.text("request_id <> ''"),
        postgresql_where=sa.text("request_id <> ''"),
    )
    op.drop_index(
        "ix_evaluations_ensure_key",
        table_name="evaluations",
        sqlite_where=sa.text("ensure_key <> ''"),
        postgresql_where=sa.text("ensure_key <> ''"),
    )
    op.drop_index(op.f("ix_evaluations_end_us"), table_name="evaluations")
    op.drop_index(
        "ix_evaluations_due_us",
        table_name="evaluations",
        sqlite_where=sa.text("due_us IS NOT NULL"),
        postgresql_where=sa.text("due_us IS NOT NULL"),
    )
    op.drop_index(op.f("ix_evaluations_create_us_id"), table_name="evaluations")
    op.drop_table("evaluations")
    op.drop_index(op.f("ix_downtimes_end_us"), table_name="downtimes")
    op.drop_table("downtimes")
    op.drop_index(op.f("ix_audit_log_create_us"), table_name="audit_log")
    op.drop_table("audit_log")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION audit_log_is_append_only()")
