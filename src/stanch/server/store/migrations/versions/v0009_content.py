"""Rules and indicators: versions of them, what is published to whom, and which endpoints were ever told."""

import sqlalchemy as sa
from alembic import op

from stanch.server.store.tables import Moment

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make three tables and a column."""
    op.create_table(
        "content",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("newest", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_content")),
    )
    _make_versions()
    _make_publications()
    op.add_column("endpoints", sa.Column("content_told", sa.Boolean(), nullable=False, server_default=sa.false()))


def _make_versions() -> None:
    op.create_table(
        "content_versions",
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("rules", sa.Integer(), nullable=False),
        sa.Column("problems", sa.Integer(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("lint", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["content"], ["content.name"], name=op.f("fk_content_versions_content"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("content", "version", name=op.f("pk_content_versions")),
        sa.UniqueConstraint("content", "sha256", name=op.f("uq_content_versions_content_sha256")),
    )
    op.create_index(op.f("ix_content_versions_sha256"), "content_versions", ["sha256"])


def _make_publications() -> None:
    op.create_table(
        "content_publications",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("group_name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("undone", Moment(), nullable=True),
        sa.Column("undone_by", sa.String(length=200), nullable=True),
        sa.ForeignKeyConstraint(
            ["content"], ["content.name"], name=op.f("fk_content_publications_content"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["group_name"], ["groups.name"], name=op.f("fk_content_publications_group_name"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_content_publications")),
    )
    op.create_index("ix_content_publications_content_group", "content_publications", ["content", "group_name"])


def downgrade() -> None:
    """Remove them."""
    op.drop_column("endpoints", "content_told")
    op.drop_table("content_publications")
    op.drop_table("content_versions")
    op.drop_table("content")
