"""What programs that speak OpenAI's API send and are given: files, and batches with their lines."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    real = sa.Double().with_variant(sa.REAL(), "sqlite")
    op.create_table(
        "files",
        sa.Column("id", whole, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("bytes", whole, nullable=True),
        sa.Column("created_at", real, nullable=False),
        sa.Column("expires_at", real, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("key", name=op.f("uq_files_key")),
        sqlite_strict=True,
    )
    op.create_table(
        "file_chunks",
        sa.Column("file_id", whole, nullable=False),
        sa.Column("ordinal", whole, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name=op.f("fk_file_chunks_file_id")),
        sa.PrimaryKeyConstraint("file_id", "ordinal", name=op.f("pk_file_chunks")),
        sqlite_strict=True,
    )
    op.create_table(
        "batches",
        sa.Column("id", whole, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job_id", whole, nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_file", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("output_seconds", real, nullable=True),
        sa.Column("total", whole, server_default=sa.text("0"), nullable=False),
        sa.Column("refused", whole, server_default=sa.text("0"), nullable=False),
        sa.Column("completed", whole, nullable=True),
        sa.Column("failed", whole, nullable=True),
        sa.Column("created_at", real, nullable=False),
        sa.Column("expires_at", real, nullable=False),
        sa.Column("in_progress_at", real, nullable=True),
        sa.Column("finalizing_at", real, nullable=True),
        sa.Column("cancelling_at", real, nullable=True),
        sa.Column("ended_at", real, nullable=True),
        sa.Column("status", sa.Text(), nullable=True),
        sa.Column("output_file", sa.Text(), nullable=True),
        sa.Column("error_file", sa.Text(), nullable=True),
        sa.Column("errors", sa.Text(), nullable=True),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.CheckConstraint("(ended_at IS NULL) = (status IS NULL)", name=op.f("ck_batches_ended")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_batches_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("key", name=op.f("uq_batches_key")),
        sqlite_strict=True,
    )
    op.create_index("ix_batches_job", "batches", ["job_id"], unique=False)
    op.create_index(
        "ix_batches_unended",
        "batches",
        ["id"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", whole, nullable=False),
        sa.Column("ordinal", whole, nullable=False),
        sa.Column("prompt_id", whole, nullable=True),
        sa.Column("custom_id", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("prompt_id IS NULL OR error IS NULL", name=op.f("ck_batch_lines_answer")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_batch_lines_batch_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_batch_lines_prompt_id")),
        sa.PrimaryKeyConstraint("batch_id", "ordinal", name=op.f("pk_batch_lines")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_batch_lines_prompt",
        "batch_lines",
        ["prompt_id"],
        unique=False,
        sqlite_where=sa.text("prompt_id IS NOT NULL"),
        postgresql_where=sa.text("prompt_id IS NOT NULL"),
    )
