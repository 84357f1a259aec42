"""Which evidence keys were in use."""

import sqlalchemy as sa
from alembic import op

from stanch.server.store.tables import Moment

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One table; the server notes its key at the next start."""
    op.create_table(
        "evidence_keys",
        sa.Column("recipient", sa.String(length=200), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("recipient", name=op.f("pk_evidence_keys")),
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_table("evidence_keys")
