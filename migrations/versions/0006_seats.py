"""How many seats were found to be of use to a worker that does not tell its slots."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("seats", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True))
