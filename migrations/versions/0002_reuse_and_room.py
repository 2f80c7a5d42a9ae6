"""What reuse and retries need: which weights gave an answer, jobs that ask anew, room of a prompt's own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("results", sa.Column("digest", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("fresh", whole, server_default=sa.text("0"), nullable=False))
    op.add_column("prompts", sa.Column("max_tokens", whole, nullable=True))
    op.drop_index("ix_jobs_building", "jobs")
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["request_hash"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_prompts_answered",
        "prompts",
        ["reading_id"],
        unique=False,
        sqlite_where=sa.text("state = 'done'"),
        postgresql_where=sa.text("state = 'done'"),
    )
