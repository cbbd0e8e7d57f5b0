"""Which long vectors lie in files beside the database. What is in rows stays there."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
_ADDED = {"round": ("parameters_file", "total_file"), "message": ("envelope_file", "body_file")}


def upgrade() -> None:
    for table, names in _ADDED.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.String))


def downgrade() -> None:
    """Files are not taken back into rows: whoever goes back loses the rounds that have some."""
    for table, names in _ADDED.items():
        for name in names:
            op.drop_column(table, name)
