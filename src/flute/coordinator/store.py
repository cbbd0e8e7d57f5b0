"""What the coordinator remembers: studies, consents, tickets, rounds and every envelope of a round.

Of a round that has ended, large messages are kept without what made them large (`keeping`); until then that lies in
files beside the database (`bodies_of`), as do the long vectors that rounds ask with and open. SQLite through
SQLAlchemy; the schema is made and changed by the migrations beside this file. The totals it
holds are opened ones, covered by the hubs' noise; it never has a record or a hub's own answer in clear.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    JSON,
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
)

from flute.transport.bodies import Bodies

METADATA: Final = MetaData()
_WAL_BYTES: Final = 2**26
"""What the write-ahead log shrinks to once its pages are in the database; a round of millions makes it longer."""
_PAGE_BYTES: Final = 65_536
"""Of a new database: a vector of millions is a chain of pages, which is walked to reach what stands behind it, and to
be freed. An older database keeps its own."""

STUDY: Final = Table(
    "study", METADATA,
    Column("study", String, primary_key=True),
    Column("agreement", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("why", String, nullable=False, default=""),
    Column("proposed_at", Integer, nullable=False),
    Column("ended_at", Integer, nullable=False, default=0),
)  # fmt: skip

CONSENT: Final = Table(
    "consent", METADATA,
    Column("study", String, primary_key=True),
    Column("hub", String, primary_key=True),
    Column("decision", String, nullable=False),
    Column("key", LargeBinary),
    Column("snapshot", LargeBinary, nullable=False),
    Column("at", Integer, nullable=False),
)  # fmt: skip

TICKET: Final = Table(
    "ticket", METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("study", String, nullable=False, index=True),
    Column("hub", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("round", Integer),
)  # fmt: skip

ROUND: Final = Table(
    "round", METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", String, nullable=False, index=True),
    Column("question", String, nullable=False),
    Column("party", String, nullable=False),  # "" for a pooled round, a hub's id for one of its own
    Column("step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("why", String, nullable=False, default=""),
    Column("parameters", LargeBinary, nullable=False),  # as they travel: float64, little-endian
    Column("total", LargeBinary),
    Column("sigma", Float, nullable=False, default=0.0),
    Column("deadline", Float, nullable=False),
    Column("began_at", Float, nullable=False),
    Column("ended_at", Float, nullable=False, default=0.0),
    Column("parameters_file", String),  # of the bodies beside; null where the row has it itself
    Column("total_file", String),
    UniqueConstraint("study", "question", "party", "step", "attempt"),
)  # fmt: skip

MESSAGE: Final = Table(
    "message", METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("round", Integer, nullable=False, index=True),
    Column("hub", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("outgoing", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False, index=True),
    Column("envelope", LargeBinary, nullable=False),  # what stays of it, where a file has all of it
    Column("body", LargeBinary, nullable=False),
    Column("envelope_file", String),
    Column("body_file", String),
    UniqueConstraint("round", "hub", "kind", "outgoing"),
)  # fmt: skip

RESULT: Final = Table(
    "result", METADATA,
    Column("study", String, primary_key=True),
    Column("reference", String, primary_key=True),  # question id, or question@hub
    Column("result", JSON, nullable=False),
    Column("at", Integer, nullable=False),
)  # fmt: skip

TRAFFIC: Final = Table(
    "traffic", METADATA,
    Column("study", String, primary_key=True),
    Column("sender", String, primary_key=True),
    Column("recipient", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("messages", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)  # fmt: skip

SEEN: Final = Table(
    "seen", METADATA,
    Column("nonce", LargeBinary, primary_key=True),
    Column("forget_at", Integer, nullable=False, index=True),
)  # fmt: skip

HEAD: Final = Table(
    "head", METADATA,
    Column("hub", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("head", LargeBinary, nullable=False),
)  # fmt: skip

KEY: Final = Table(
    "study_key", METADATA,
    Column("study", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),  # public: what hubs made together
)  # fmt: skip

ENROLMENT: Final = Table(
    "enrolment", METADATA,
    Column("hub", String, primary_key=True),
    Column("token", LargeBinary, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("request", LargeBinary),
    Column("admission", LargeBinary),
)  # fmt: skip


def bodies_of(engine: Engine) -> Bodies:
    """The files beside an open database."""
    path = Path(engine.url.database or "")
    return Bodies(path.with_name(f"{path.stem}-bodies"), durable=True)


def open_store(path: Path) -> Engine:
    """The database, brought to the newest schema. Every commit is on disk when it returns."""
    path.touch(mode=0o600, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _durable(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        cursor.close()

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return engine
