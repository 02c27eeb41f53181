"""What one image costs a teacher's network. Only adds: older code goes on working."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Teachers that are there have none: their folders were read before it was looked for."""
    op.add_column("teachers", sa.Column("footprint", sa.JSON(), nullable=True))
