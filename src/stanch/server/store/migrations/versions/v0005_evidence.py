"""What became of evidence: when it was verified, and who deleted it."""

import sqlalchemy as sa
from alembic import op

from stanch.server.store.tables import Moment

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = ("verified", "damage", "deleted", "deleted_by", "deleted_why", "bytes_gone")


def upgrade() -> None:
    """Six columns."""
    # Not in a batch: that would make the table anew, and the parts of evidence would go with the old one.
    op.add_column("evidence", sa.Column("verified", Moment(), nullable=True))
    op.add_column("evidence", sa.Column("damage", sa.Text(), nullable=True))
    op.add_column("evidence", sa.Column("deleted", Moment(), nullable=True))
    op.add_column("evidence", sa.Column("deleted_by", sa.String(length=200), nullable=True))
    op.add_column("evidence", sa.Column("deleted_why", sa.Text(), nullable=True))
    op.add_column("evidence", sa.Column("bytes_gone", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Remove them."""
    for name in reversed(_COLUMNS):
        op.drop_column("evidence", name)
