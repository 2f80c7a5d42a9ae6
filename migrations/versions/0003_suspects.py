"""Finds what was in flight whenever somebody went down, without a look at all prompts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SUSPECTED = sa.text("state = 'pending' AND losses >= 3")


def upgrade() -> None:
    op.create_index(
        "ix_prompts_suspected",
        "prompts",
        ["deaths_alone"],
        unique=False,
        sqlite_where=_SUSPECTED,
        postgresql_where=_SUSPECTED,
    )


def downgrade() -> None:
    op.drop_index("ix_prompts_suspected", "prompts")
