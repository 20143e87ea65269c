"""The store: durable state and the event log, by SQLAlchemy Core; SQLite now, PostgreSQL by the same tables."""
