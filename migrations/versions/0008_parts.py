"""Long documents in parts: the window that they are split for, and prompts that put answers together."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("jobs", sa.Column("window", whole, nullable=True))
    op.add_column("jobs", sa.Column("with_references", whole, server_default=sa.text("1"), nullable=False))
    op.add_column("templates", sa.Column("merge", sa.Text(), nullable=True))
    op.add_column("templates", sa.Column("merge_tokens", whole, server_default=sa.text("0"), nullable=False))
    op.add_column("prompts", sa.Column("level", whole, server_default=sa.text("0"), nullable=False))
    op.add_column("prompts", sa.Column("part", whole, nullable=True))
    op.add_column("prompts", sa.Column("parts", whole, nullable=True))
    op.create_table(
        "job_parts",
        sa.Column("job_id", whole, nullable=False),
        sa.Column("ordinal", whole, nullable=False),
        sa.Column("part", whole, nullable=False),
        sa.Column("reading_id", whole, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_parts_job_id")),
        sa.ForeignKeyConstraint(["reading_id"], ["readings.id"], name=op.f("fk_job_parts_reading_id")),
        sa.PrimaryKeyConstraint("job_id", "ordinal", "part", name=op.f("pk_job_parts")),
        sqlite_strict=True,
    )
    op.create_index("ix_job_parts_reading_id", "job_parts", ["reading_id"], unique=False)
    op.create_index(
        "ix_prompts_merges",
        "prompts",
        ["job_id", "level"],
        unique=False,
        sqlite_where=sa.text("level > 0"),
        postgresql_where=sa.text("level > 0"),
    )
