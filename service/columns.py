"""What columns are made of: the base of all rows, times, and words from an enum. Alike on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Enum, MetaData, String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from service.status import Reason, Role, Wish


class Instant(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which has no time zones, keeps it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def words(enum: type[StrEnum], name: str | None = None) -> Enum:
    """Stored as text; with `name`, a CHECK constraint refuses every other word."""
    return Enum(
        enum,
        native_enum=False,
        length=24,
        create_constraint=name is not None,
        name=name,
        values_callable=lambda members: [member.value for member in members],
    )


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        datetime: Instant,
        int: BigInteger,
        str: String,
        dict[str, Any]: JSON,
        list[int]: JSON,
        list[str]: JSON,
        Reason: words(Reason),
        Wish: words(Wish),
        Role: words(Role),
    }
