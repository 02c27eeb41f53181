"""What a submission is measured against: FastAPI, a checked body, one row in one transaction, and nothing else."""

from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import JSON, event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.settings import Settings


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "bare_things"

    id: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)


class Body(BaseModel):
    teacher: str
    method: dict[str, Any]


def create_app() -> FastAPI:
    engine = create_async_engine(Settings().resolved_database_url(), pool_size=16, max_overflow=0)
    app = FastAPI()
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: Any, _record: object) -> None:
            cursor = connection.cursor()
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        return {"ok": True}

    @app.post("/v1/jobs", status_code=202)
    async def submit(body: Body) -> dict[str, Any]:
        row = Thing(id=uuid4().hex, spec=body.model_dump())
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            session.add(row)
        return {"id": row.id, "spec": row.spec}

    return app
