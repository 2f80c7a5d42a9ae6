"""What the counts of a model have taught of its tokenizer."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    real = sa.Double().with_variant(sa.REAL(), "sqlite")
    op.create_table(
        "model_tokens",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("counts", whole, nullable=False),
        sa.Column("learnt_at", real, nullable=False),
        sa.Column("factors", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_model_tokens")),
        sqlite_strict=True,
    )
