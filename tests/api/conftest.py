"""The API's tests run on both databases, in this process."""

from api_fixtures import cluster, database_url, postgres, server, settings, sqlite_template, teacher_files

__all__ = ["cluster", "database_url", "postgres", "server", "settings", "sqlite_template", "teacher_files"]
