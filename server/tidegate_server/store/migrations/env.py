"""Runs migrations on the connection that `migrate` hands over, within its transaction."""

from alembic import context

from tidegate_server.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, compare_type=True)
context.run_migrations()
