"""What an endpoint tells about its isolation."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One column."""
    op.add_column("endpoints", sa.Column("isolation", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("endpoints", "isolation")
