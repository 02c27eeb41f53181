"""The API's tests run on both databases, in this process."""

from api_fixtures import cluster, database_url, server, settings, teacher_files

__all__ = ["cluster", "database_url", "server", "settings", "teacher_files"]
