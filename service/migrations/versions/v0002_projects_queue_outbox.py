"""Projects, the queue, leases, webhooks and the audit log. Only adds: code of revision 0001 goes on working on it."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

DEFAULT_PROJECT = "prj_00000000000000000000000000"


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("previous", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("seq", name=op.f("uq_audit_log_seq")),
    )
    op.create_index("ix_audit_log_project_id_id", "audit_log", ["project_id", "id"], unique=False)

    op.create_table(
        "duties",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duties")),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("cpus", sa.Double(), nullable=False),
        sa.Column("gpus", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("max_jobs", sa.BigInteger(), nullable=True),
        sa.Column("max_gpus", sa.Double(), nullable=True),
        sa.Column("max_gpu_hours", sa.Double(), nullable=True),
        sa.Column("max_priority", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.create_table(
        "idempotent_requests",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request_sha256", sa.String(), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_idempotent_requests_project_id")),
        sa.PrimaryKeyConstraint("project_id", "key", name=op.f("pk_idempotent_requests")),
    )
    op.create_index("ix_idempotent_requests_created_at", "idempotent_requests", ["created_at"], unique=False)

    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_webhooks_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index("ix_webhooks_project_id_id", "webhooks", ["project_id", "id"], unique=False)

    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index(
        "ix_deliveries_webhook_id_due_at",
        "deliveries",
        ["webhook_id", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_deliveries_webhook_id_id", "deliveries", ["webhook_id", "id"], unique=False)
    op.create_index("ix_deliveries_webhook_id_status_id", "deliveries", ["webhook_id", "status", "id"], unique=False)

    op.create_table(
        "job_methods",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_methods_job_id")),
        sa.PrimaryKeyConstraint("project_id", "kind", "job_id", name=op.f("pk_job_methods")),
    )
    op.create_index(
        "ix_job_methods_project_id_kind_status_job_id",
        "job_methods",
        ["project_id", "kind", "status", "job_id"],
        unique=False,
    )
    op.add_column("api_keys", sa.Column("project_id", sa.String(), nullable=False, server_default=DEFAULT_PROJECT))
    op.add_column("api_keys", sa.Column("role", sa.String(length=24), nullable=False, server_default="admin"))
    op.add_column("api_keys", sa.Column("prefix", sa.String(), nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_api_keys_project_id_id", "api_keys", ["project_id", "id"], unique=False)

    op.add_column("attempts", sa.Column("gpus", sa.Double(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("asked_reason", sa.String(length=24), nullable=True))
    op.add_column("attempts", sa.Column("writer", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("attempts", sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_attempts_ended_at", "attempts", ["ended_at"], unique=False)

    op.add_column("endpoints", sa.Column("project_id", sa.String(), nullable=False, server_default=DEFAULT_PROJECT))
    op.create_index("ix_endpoints_project_id_id", "endpoints", ["project_id", "id"], unique=False)

    op.add_column("jobs", sa.Column("project_id", sa.String(), nullable=False, server_default=DEFAULT_PROJECT))
    op.add_column("jobs", sa.Column("priority", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("workers", sa.BigInteger(), nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("cpus_per_worker", sa.Double(), nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("gpus_per_worker", sa.Double(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("traceparent", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("preemptions", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("run_seconds", sa.Double(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("requeued_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("look_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("lease_token", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_index("ix_jobs_name", "jobs")
    op.create_index(
        "ix_jobs_look_at",
        "jobs",
        ["look_at"],
        unique=False,
        sqlite_where=sa.text("look_at IS NOT NULL"),
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_project_id_name_status_id", "jobs", ["project_id", "name", "status", "id"], unique=False)
    op.create_index("ix_jobs_project_id_status_id", "jobs", ["project_id", "status", "id"], unique=False)
    op.create_index(
        "ix_jobs_project_id_teacher_status_id", "jobs", ["project_id", "teacher", "status", "id"], unique=False
    )

    op.add_column("students", sa.Column("project_id", sa.String(), nullable=False, server_default=DEFAULT_PROJECT))
    op.drop_index("ix_students_name", "students")
    op.create_index("ix_students_project_id_id", "students", ["project_id", "id"], unique=False)
    op.create_index("ix_students_project_id_method_id", "students", ["project_id", "method", "id"], unique=False)
    op.create_index("ix_students_project_id_name_id", "students", ["project_id", "name", "id"], unique=False)
    op.create_index("ix_students_project_id_teacher_id", "students", ["project_id", "teacher", "id"], unique=False)

    with op.batch_alter_table("teachers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("project_id", sa.String(), nullable=False, server_default=""))
        batch_op.drop_constraint(batch_op.f("uq_teachers_name"), type_="unique")
        batch_op.create_unique_constraint(batch_op.f("uq_teachers_project_id_name"), ["project_id", "name"])
    _fill()


def _fill() -> None:
    """What the new columns and tables say of the rows that are there."""
    connection = op.get_bind()
    now = sa.func.current_timestamp()
    projects = sa.table("projects", *map(sa.column, ("id", "name", "weight", "max_priority", "created_at")))
    row = {"id": DEFAULT_PROJECT, "name": "default", "weight": 1.0, "max_priority": 10, "created_at": now}
    connection.execute(projects.insert().values(row))
    names = ("id", "status", "methods", "spec", "workers", "cpus_per_worker", "gpus_per_worker", "look_at")
    jobs = sa.table("jobs", *map(sa.column, names))
    spec: sa.ColumnClause[Any] = sa.column("spec", sa.JSON)
    methods: list[dict[str, str]] = []
    rows = connection.execute(sa.select(jobs.c.id, jobs.c.methods, jobs.c.status, spec).select_from(jobs)).all()
    for job_id, kinds, status, asked in rows:
        found = {"project_id": DEFAULT_PROJECT, "job_id": job_id, "status": status}
        methods += [{**found, "kind": kind} for kind in sorted(set(kinds.split()))]
        resources = {name: asked["resources"][name] for name in ("workers", "cpus_per_worker", "gpus_per_worker")}
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(resources))
    op.bulk_insert(sa.table("job_methods", *map(sa.column, ("project_id", "kind", "job_id", "status"))), methods)
    connection.execute(sa.update(jobs).where(jobs.c.status != "succeeded").values(look_at=now))
