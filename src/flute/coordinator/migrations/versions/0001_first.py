"""The first schema: studies, consents, tickets, rounds, messages, results, traffic, enrolment."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "study",
        sa.Column("study", sa.String, primary_key=True),
        sa.Column("agreement", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("proposed_at", sa.Integer, nullable=False),
        sa.Column("ended_at", sa.Integer, nullable=False),
    )
    op.create_table(
        "consent",
        sa.Column("study", sa.String, primary_key=True),
        sa.Column("hub", sa.String, primary_key=True),
        sa.Column("decision", sa.String, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("snapshot", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
    )
    op.create_table(
        "ticket",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("study", sa.String, nullable=False, index=True),
        sa.Column("hub", sa.String, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("round", sa.Integer),
    )
    op.create_table(
        "round",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("study", sa.String, nullable=False, index=True),
        sa.Column("question", sa.String, nullable=False),
        sa.Column("party", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("total", sa.LargeBinary),
        sa.Column("sigma", sa.Float, nullable=False),
        sa.Column("deadline", sa.Float, nullable=False),
        sa.Column("began_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.UniqueConstraint("study", "question", "party", "step", "attempt"),
    )
    op.create_table(
        "message",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("round", sa.Integer, nullable=False, index=True),
        sa.Column("hub", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("outgoing", sa.Integer, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, index=True),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("round", "hub", "kind", "outgoing"),
    )
    op.create_table(
        "result",
        sa.Column("study", sa.String, primary_key=True),
        sa.Column("reference", sa.String, primary_key=True),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
    )
    op.create_table(
        "traffic",
        sa.Column("study", sa.String, primary_key=True),
        sa.Column("sender", sa.String, primary_key=True),
        sa.Column("recipient", sa.String, primary_key=True),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
    )
    op.create_table(
        "seen",
        sa.Column("nonce", sa.LargeBinary, primary_key=True),
        sa.Column("forget_at", sa.Integer, nullable=False, index=True),
    )
    op.create_table(
        "enrolment",
        sa.Column("hub", sa.String, primary_key=True),
        sa.Column("token", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("request", sa.LargeBinary),
        sa.Column("admission", sa.LargeBinary),
    )


def downgrade() -> None:
    for table in ("enrolment", "seen", "traffic", "result", "message", "round", "ticket", "consent", "study"):
        op.drop_table(table)
