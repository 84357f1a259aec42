"""What people have uploaded, and which orders name it."""

import sqlalchemy as sa
from alembic import op

from stanch.server.store.tables import Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make two tables."""
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("used", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint("created_by", "name", "sha256", name=op.f("uq_uploads_created_by_name_sha256")),
    )
    op.create_index(op.f("ix_uploads_used"), "uploads", ["used"])
    op.create_table(
        "upload_uses",
        sa.Column("upload", sa.String(length=64), nullable=False),
        sa.Column("order_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["upload"], ["uploads.id"], name=op.f("fk_upload_uses_upload"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_upload_uses_order_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload", "order_id", name=op.f("pk_upload_uses")),
    )
    op.create_index(op.f("ix_upload_uses_order_id"), "upload_uses", ["order_id"])


def downgrade() -> None:
    """Remove them."""
    op.drop_table("upload_uses")
    op.drop_table("uploads")
