"""The store's tests run on both databases: SQLite, and a real PostgreSQL from a wheel."""

from service_fixtures import cluster, database_url, db, digits, settings

__all__ = ["cluster", "database_url", "db", "digits", "settings"]
