"""Alembic's environment: migrations run on the connection that `store.migrate` hands over, in its transaction."""

from alembic import context

from stanch.server.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=False,
)
context.run_migrations()
