"""Indexes that tell what needs a reading or a document, so that those which nothing needs can be found."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, table, column, condition in (
        ("ix_job_documents_document", "job_documents", "document_id", "document_id IS NOT NULL"),
        ("ix_job_documents_reading", "job_documents", "reading_id", "reading_id IS NOT NULL"),
        ("ix_readings_document", "readings", "document_id", "document_id IS NOT NULL"),
        ("ix_prompts_own_reading", "prompts", "reading_id", "document_id IS NULL OR parent_id IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, table, [column], unique=False, sqlite_where=where, postgresql_where=where)
