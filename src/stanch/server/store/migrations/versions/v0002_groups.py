"""Groups and their policies; and which endpoints were ever told one."""

import sqlalchemy as sa
from alembic import op

from stanch.server.store.tables import Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, with the one group that always is."""
    made = op.create_table(
        "groups",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed", Moment(), nullable=True),
        sa.Column("changed_by", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_groups")),
    )
    every = {"name": "all", "labels": [], "rank": 1_000_000, "description": "Every endpoint."}
    op.bulk_insert(made, [{**every, "settings": {}, "version": 0, "changed": None, "changed_by": ""}])
    # Not in a batch: that would make the table anew, and the labels of endpoints would go with the old one.
    op.add_column("endpoints", sa.Column("policy_told", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Remove them."""
    op.drop_column("endpoints", "policy_told")
    op.drop_table("groups")
