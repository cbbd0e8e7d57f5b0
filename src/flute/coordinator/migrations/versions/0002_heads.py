"""The newest head of every hub's journal, kept for the hub."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "head",
        sa.Column("hub", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("head", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("head")
