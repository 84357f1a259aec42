"""Parts of evidence that are encrypted, and parts that are nothing but zeros."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What was recorded before is plain."""
    plain = sa.Column("encoding", sa.String(length=20), nullable=False, server_default="plain")
    op.add_column("evidence_parts", plain)
    op.add_column("evidence_parts", sa.Column("stored_size", sa.Integer(), nullable=True))
    op.add_column("evidence_parts", sa.Column("stored_sha256", sa.String(length=64), nullable=True))
    op.create_table(
        "evidence_holes",
        sa.Column("evidence", sa.String(length=64), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evidence"], ["evidence.id"], name=op.f("fk_evidence_holes_evidence"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("evidence", "first", name=op.f("pk_evidence_holes")),
    )


def downgrade() -> None:
    """Remove them; sealed parts cannot be read by an older server."""
    op.drop_table("evidence_holes")
    for name in ("stored_sha256", "stored_size", "encoding"):
        op.drop_column("evidence_parts", name)
