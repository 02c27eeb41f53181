"""Rows that the platform keeps for itself: who does what for all, the machines it sees, and its secrets."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from service.columns import Row


class Duty(Row):
    """A lease on something that one process does for all: serving, sealing the audit log."""

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str]
    expires_at: Mapped[datetime]


class Node(Row):
    """A machine of the Ray cluster, as last seen."""

    __tablename__ = "nodes"

    id: Mapped[str] = mapped_column(primary_key=True)
    cpus: Mapped[float]
    gpus: Mapped[float]
    seen_at: Mapped[datetime]


class Secret(Row):
    """What every process of the control plane must share: the keys that tokens are derived from."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
