"""Run by Alembic with the connection that `service.db` hands over."""

from alembic import context

from service.tables import Job

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Job.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
