"""What one process does for all now and then: sealing the audit log, and forgetting old answers to repeated creates."""

from datetime import datetime, timedelta

from service import audit, idempotency
from service.db import Database
from service.leases import DutyLease

INTERVAL = 1.0
"""Seconds for which a new entry of the audit log is outside its chain."""
FORGET_EVERY = timedelta(minutes=10)


class Housekeeping:
    """Done by whoever holds the duty "audit"."""

    def __init__(self, db: Database, lease_seconds: float) -> None:
        self._db = db
        self._duty = DutyLease(db, "audit", lease_seconds)
        self._forgot_at: datetime | None = None

    async def tick(self) -> None:
        """Seal all that is there to be sealed."""
        async with self._duty.held() as mine:
            if not mine:
                return
            async with self._db.read() as session:
                now = await self._db.now(session)
                waiting = await audit.unsealed(session)
            while waiting > 0:
                async with self._db.write() as session:
                    sealed = await audit.seal(session, await self._db.now(session))
                waiting = waiting - sealed if sealed else 0
            if self._forgot_at is None or now - self._forgot_at > FORGET_EVERY:
                async with self._db.write() as session:
                    await idempotency.forget(session, now)
                self._forgot_at = now

    async def release(self) -> None:
        """Let another process take over at once."""
        await self._duty.release()
