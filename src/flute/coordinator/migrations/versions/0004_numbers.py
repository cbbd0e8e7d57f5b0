"""What a round was asked with, as bytes (float64, little-endian) instead of a list in JSON."""

import json
import struct
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rewrite("BLOB NOT NULL DEFAULT x''", lambda text: _packed(json.loads(text)))


def downgrade() -> None:
    _rewrite("JSON NOT NULL DEFAULT '[]'", lambda raw: json.dumps(struct.unpack(f"<{len(raw) // 8}d", raw)))


def _packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


def _rewrite(kind: str, converted: Callable[[Any], Any]) -> None:
    """The column anew, one row in memory at a time."""
    connection = op.get_bind()
    connection.execute(sa.text(f"ALTER TABLE round ADD COLUMN rewritten {kind}"))
    for number in connection.execute(sa.text("SELECT id FROM round")).scalars().all():
        one = {"id": number}
        stored = connection.execute(sa.text("SELECT parameters FROM round WHERE id = :id"), one).scalar_one()
        changed = one | {"now": converted(stored)}
        connection.execute(sa.text("UPDATE round SET rewritten = :now WHERE id = :id"), changed)
    connection.execute(sa.text("ALTER TABLE round DROP COLUMN parameters"))
    connection.execute(sa.text("ALTER TABLE round RENAME COLUMN rewritten TO parameters"))
