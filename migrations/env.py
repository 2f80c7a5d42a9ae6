"""Run the migrations on the connection that distllm hands over, or on ./distllm.db for developers."""

from alembic import context
from sqlalchemy import Connection

from distllm.store.migrate import connect
from distllm.store.tables import metadata


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with connect("distllm.db") as own:
        _run(own)
