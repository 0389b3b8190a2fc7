"""How the store's schema came to be, one step a file; run by Alembic, only where a step is missing."""
