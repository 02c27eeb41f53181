"""Families of teachers, and students that are asked for images by prompts. Only adds: older code goes on working."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """The teachers that are there are all UNet2DModels, and nothing takes text yet."""
    op.add_column("teachers", sa.Column("family", sa.String(), nullable=False, server_default="unet2d"))
    op.add_column("teachers", sa.Column("text", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("students", sa.Column("text", sa.Boolean(), nullable=False, server_default=sa.false()))
