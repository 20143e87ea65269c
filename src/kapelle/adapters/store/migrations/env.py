"""How Alembic reaches the database: over the connection and inside the transaction that it is handed."""

from alembic import context

from kapelle.adapters.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
