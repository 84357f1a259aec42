"""The tables. SQL is the only record of truth; `migrations/` builds them and a test holds the two together."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware moment, kept in UTC: SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - of the base
        """To naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - of the base
        """Back to aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


_ID = String(64)
_SHA256 = String(64)

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("roles", JSON, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("created", Moment, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", _SHA256, primary_key=True),
    Column("account", ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("hostname", String(255), nullable=False, index=True),
    Column("certificate_sha256", _SHA256, nullable=False, unique=True),
    Column("next_certificate_sha256", _SHA256, index=True, unique=True),
    Column("next_issued", Moment),
    Column("revoked", Boolean, nullable=False, default=False),
    Column("enrolled", Moment, nullable=False),
    Column("last_seen", Moment),
    Column("agent_version", String(200), nullable=False, default=""),
    Column("inventory", JSON, nullable=False),
    Column("actions", JSON, nullable=False),
    Column("capabilities", JSON, nullable=False),
    Column("effects", JSON, nullable=False),
    Column("isolation", JSON(none_as_null=True)),
    Column("policy_digest", String(200), nullable=False, default=""),
    Column("policy_told", Boolean, nullable=False, default=False, server_default=false()),
    Column("content_told", Boolean, nullable=False, default=False, server_default=false()),
    Column("search", Text, nullable=False),
)
"""`search` holds, in lower case, everything that `stanch endpoints --search` looks through; `policy_told`: was it
ever sent the policy of its groups? Then it must be told too when there is none any more; `content_told`: the same of
the rules and indicators that it should have; `next_certificate_sha256`: of
a renewed certificate that was not used yet, and `next_issued`: when the newest was issued."""

endpoint_labels = Table(
    "endpoint_labels",
    metadata,
    Column("endpoint", ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(63), nullable=False),
    Index("ix_endpoint_labels_key_value", "key", "value"),
)

groups = Table(
    "groups",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("labels", JSON, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("changed", Moment),
    Column("changed_by", String(200), nullable=False),
)
"""Names for label selectors, each with its policy: `settings` holds the sections that it sets, without the defaults."""

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("secret_hash", _SHA256, nullable=False, unique=True),
    Column("uses_left", Integer, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("created", Moment, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
)

orders = Table(
    "orders",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("action", String(200), nullable=False),
    Column("params", JSON, nullable=False),
    Column("origin", String(20), nullable=False),
    Column("solution", String(20)),
    Column("requested_by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("case", String(200)),
    Column("dry_run", Boolean, nullable=False),
    Column("created", Moment, nullable=False),
    Column("valid_until", Moment, nullable=False),
    Column("undoes", ForeignKey("orders.id")),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("order_id", ForeignKey("orders.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("endpoint", ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("state", String(20), nullable=False),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("result", JSON(none_as_null=True)),
    Column("error", JSON(none_as_null=True)),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Index("ix_tasks_endpoint_state", "endpoint", "state"),
    Index("ix_tasks_state", "state"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("task", ForeignKey("tasks.id"), nullable=False),
    Column("endpoint", ForeignKey("endpoints.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", _SHA256),
    Column("complete", Boolean, nullable=False, default=False),
    Column("received", BigInteger, nullable=False, default=0),
    Column("created", Moment, nullable=False),
    Column("verified", Moment),
    Column("damage", Text),
    Column("deleted", Moment),
    Column("deleted_by", String(200)),
    Column("deleted_why", Text),
    Column("bytes_gone", Boolean, nullable=False, default=False, server_default=false()),
    UniqueConstraint("task", "name"),
)
"""`verified`: when all of it was last read and found whole, and `damage` what was wrong with it then. A row that is
`deleted` stays as a tombstone; `bytes_gone`: its files are no more either, so that the sweep need not look again."""

evidence_parts = Table(
    "evidence_parts",
    metadata,
    Column("evidence", ForeignKey("evidence.id", ondelete="CASCADE"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("sha256", _SHA256, nullable=False),
    Column("encoding", String(20), nullable=False, default="plain", server_default="plain"),
    Column("stored_size", Integer),
    Column("stored_sha256", _SHA256),
)
"""`size` and `sha256` are of the part as it was on the endpoint, `stored_*` of its file here: null for plain parts,
which came before there was an evidence key."""

evidence_holes = Table(
    "evidence_holes",
    metadata,
    Column("evidence", ForeignKey("evidence.id", ondelete="CASCADE"), primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
)
"""Runs of parts that are nothing but zeros, and have no files."""

evidence_keys = Table(
    "evidence_keys",
    metadata,
    Column("recipient", String(200), primary_key=True),
    Column("since", Moment, nullable=False),
)
"""The public halves of the evidence keys that were in use; the newest is the one of now."""

uploads = Table(
    "uploads",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", _SHA256, nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("created", Moment, nullable=False),
    Column("used", Moment, nullable=False, index=True),
    UniqueConstraint("created_by", "name", "sha256"),
)
"""`used`: when an order named it last, or when it came."""

upload_uses = Table(
    "upload_uses",
    metadata,
    Column("upload", ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("order_id", ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True, index=True),
)
"""Which orders name an upload."""

content = Table(
    "content",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("newest", Integer, nullable=False),
)
"""Rules and indicators by name. `newest`: the highest version that there ever was; no number is used twice."""

content_versions = Table(
    "content_versions",
    metadata,
    Column("content", ForeignKey("content.name", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sha256", _SHA256, nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("rules", Integer, nullable=False),
    Column("problems", Integer, nullable=False),
    Column("note", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("lint", JSON, nullable=False),
    UniqueConstraint("content", "sha256"),
)
"""`sha256` and `size` are of the pack; `lint` is what was found in it, of each file and rule."""

content_publications = Table(
    "content_publications",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("content", ForeignKey("content.name", ondelete="CASCADE"), nullable=False),
    Column("group_name", ForeignKey("groups.name", ondelete="CASCADE"), nullable=False),
    Column("version", Integer),
    Column("at", Moment, nullable=False),
    Column("by", String(200), nullable=False),
    Column("undone", Moment),
    Column("undone_by", String(200)),
    Index("ix_content_publications_content_group", "content", "group_name"),
)
"""What was published to whom: of one content and group the newest that is not undone counts; a null version says that
there is none. A rollback undoes the newest, and so goes back to the one before."""

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("endpoint", ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("at", Moment, nullable=False),
    Column("received", Moment, nullable=False),
    UniqueConstraint("endpoint", "seq", "at"),
)
"""What endpoints told unasked. (endpoint, seq, at) recognises a notice that is told twice."""

audit = Table(
    "audit",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("who", String(200), nullable=False),
    Column("what", String(200), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", _SHA256, nullable=False),
    Column("hash", _SHA256, nullable=False),
)
"""Each entry holds the hash of the one before: none can be changed or removed unseen."""

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Numbers that only grow, handed out in blocks: a version once used is never used again, even after a crash."""
