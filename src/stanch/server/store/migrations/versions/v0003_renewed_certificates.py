"""Certificates that renew themselves: the next one of an endpoint, until it was used."""

import sqlalchemy as sa
from alembic import op

from stanch.server.store.tables import Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns beside the certificate in use."""
    # Not in a batch: that would make the table anew, and the labels of endpoints would go with the old one.
    op.add_column("endpoints", sa.Column("next_certificate_sha256", sa.String(length=64), nullable=True))
    op.add_column("endpoints", sa.Column("next_issued", Moment(), nullable=True))
    name = op.f("ix_endpoints_next_certificate_sha256")
    op.create_index(name, "endpoints", ["next_certificate_sha256"], unique=True)


def downgrade() -> None:
    """Remove them."""
    op.drop_index(op.f("ix_endpoints_next_certificate_sha256"), "endpoints")
    op.drop_column("endpoints", "next_issued")
    op.drop_column("endpoints", "next_certificate_sha256")
