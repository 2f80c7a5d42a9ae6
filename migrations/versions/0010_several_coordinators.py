"""What several coordinators need: whose a worker is, whose files a job has, and until when requests may last."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    real = sa.Double().with_variant(sa.REAL(), "sqlite")
    # No foreign key, which SQLite could only add by copying the table; a coordinator's id is never given again.
    op.add_column("workers", sa.Column("coordinator_id", whole, nullable=True))
    op.add_column("jobs", sa.Column("host", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("coordinators", sa.Column("busy_until", real, server_default=sa.text("0"), nullable=False))
    op.add_column("coordinators", sa.Column("wants", sa.Text(), server_default=sa.text("'[]'"), nullable=False))
    if op.get_bind().dialect.name == "postgresql":
        # It looks for what points at each reading and document that is pruned.
        op.create_index("ix_prompts_reading", "prompts", ["reading_id"])
        op.create_index(
            "ix_prompts_document", "prompts", ["document_id"], postgresql_where=sa.text("document_id IS NOT NULL")
        )
        op.create_index("ix_job_readings_reading", "job_readings", ["reading_id"])
        # Pages go on where the last one ended: SQLite's indexes have a row's id at their end anyway.
        op.create_index(
            "ix_prompts_loose", "prompts", ["job_id", "id"], postgresql_where=sa.text("document_id IS NULL")
        )
        op.create_index(
            "ix_prompts_failed_in_order", "prompts", ["job_id", "id"], postgresql_where=sa.text("state = 'failed'")
        )
        # A prompt's row is written anew three times in its life: what is dead is cleared away before much of it has
        # gathered. The small tables have room for the next row beside the last, so that their indexes stay as they are.
        op.execute("ALTER TABLE prompts SET (autovacuum_vacuum_scale_factor = 0.02)")
        for table in ("job_counters", "job_tokens", "workers", "coordinators"):
            op.execute(
                f"ALTER TABLE {table} SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, "
                "autovacuum_vacuum_threshold = 1000)"
            )
