"""What a deployed coordinator must not forget: its runs and their models, in SQLite or PostgreSQL."""
