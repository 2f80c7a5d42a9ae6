"""What reading costs each job, and how long a model takes to load. Of jobs before this, nothing is known."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COUNTS = (
    "asked",
    "readings",
    "reading_tokens",
    "question_tokens",
    "begun_tokens",
    "read_tokens",
    "found_tokens",
    "least_tokens",
    "untold",
)


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    real = sa.Double().with_variant(sa.REAL(), "sqlite")
    op.add_column("worker_models", sa.Column("load_seconds", real, nullable=True))
    op.create_table(
        "job_tokens",
        sa.Column("job_id", whole, nullable=False),
        sa.Column("coordinator_id", whole, nullable=False),
        *(sa.Column(name, whole, server_default=sa.text("0"), nullable=False) for name in _COUNTS),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_tokens_job_id")),
        sa.PrimaryKeyConstraint("job_id", "coordinator_id", name=op.f("pk_job_tokens")),
        sqlite_strict=True,
    )
    op.create_table(
        "job_readings",
        sa.Column("job_id", whole, nullable=False),
        sa.Column("reading_id", whole, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_readings_job_id")),
        sa.ForeignKeyConstraint(["reading_id"], ["readings.id"], name=op.f("fk_job_readings_reading_id")),
        sa.PrimaryKeyConstraint("job_id", "reading_id", name=op.f("pk_job_readings")),
        sqlite_strict=True,
    )
