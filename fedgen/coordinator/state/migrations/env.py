"""What Alembic runs: the missing steps, in the transaction that the state store opened."""

from alembic import context

if __name__ == "env_py":  # the name Alembic runs this file under; imported as a module it does nothing
    context.configure(
        connection=context.config.attributes["connection"],
        transactional_ddl=True,
        version_table="coordinator_revision",
    )
    context.run_migrations()
