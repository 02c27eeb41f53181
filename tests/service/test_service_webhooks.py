"""The outbox: what is written, that it arrives at least once and signed, and that no receiver is in another's way."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
import trustme
from receiver import HANG, receiving
from service_fixtures import ClockedDatabase
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from service import jobs, outbox, submission, webhooks
from service.addresses import Refused, Resolve, checked, is_public, parse
from service.deliver import Deliverer
from service.errors import Conflict, NotFound
from service.meters import Meters
from service.outbox import LEASE, RETRIES
from service.projects import DEFAULT, ensure_default
from service.settings import Settings
from service.spec import JobSpec
from service.status import Reason, Status
from service.tables import Delivery, DeliveryStatus, Job, Project, Teacher
from service.webhooks import EventType

SPEC = JobSpec.model_validate({"teacher": "digits", "method": {"kind": "progressive"}, "name": "mine"})
OTHER = "prj_00000000000000000000000001"
PENDING, DELIVERED, DEAD = DeliveryStatus.PENDING, DeliveryStatus.DELIVERED, DeliveryStatus.DEAD


class Outbox:
    """The store, and senders that are told when to look."""

    def __init__(self, db: ClockedDatabase, settings: Settings, teacher: Teacher) -> None:
        self.db = db
        self.settings = settings.model_copy(update={"webhook_private_addresses": True})
        self.teacher = teacher
        self.meters = Meters()
        self.senders: list[Deliverer] = []

    def sender(self, timeout: float = 5, **changes: Any) -> Deliverer:
        made = Deliverer(self.db, self.settings, self.meters, timeout=timeout, **changes)
        self.senders.append(made)
        return made

    async def register(self, url: str, *events: EventType, project: str = DEFAULT) -> str:
        async with self.db.write() as session:
            return (await webhooks.create(session, project, url, events, await self.db.now(session))).id

    async def submit(self, project: str = DEFAULT) -> Job:
        async with self.db.write() as session:
            return await submission.submit(session, project, SPEC, await self.db.now(session))

    async def advance(self, job: Job, to: Status, reason: Reason, **changes: Any) -> None:
        async with self.db.write() as session:
            assert await jobs.advance(session, job, to, reason, await self.db.now(session), **changes)

    async def test(self, webhook: str) -> str:
        async with self.db.write() as session:
            return (await outbox.send_test(session, DEFAULT, webhook, await self.db.now(session))).id

    async def deliveries(self, webhook: str, project: str = DEFAULT, **filters: Any) -> list[Delivery]:
        async with self.db.read() as session:
            found = await outbox.page(session, project, webhook, limit=1000, **filters)
        return list(reversed(found))

    async def secret(self, webhook: str) -> str:
        async with self.db.write() as session:
            return webhooks.secret(await webhooks.signing_key(session), webhook)

    async def round(self, sender: Deliverer) -> int:
        started = await sender.tick()
        await sender.settle()
        return started


@pytest_asyncio.fixture
async def box(db: ClockedDatabase, settings: Settings, digits: Teacher) -> AsyncIterator[Outbox]:
    async with db.write() as session:
        now = await db.now(session)
        await ensure_default(session, now)
        session.add(Project(id=OTHER, name="other", weight=1.0, max_priority=10, created_at=now))
    made = Outbox(db, settings, digits)
    yield made
    for sender in made.senders:
        await sender.close()


async def test_events_are_written_with_their_change_and_arrive_signed(box: Outbox) -> None:
    async with receiving() as everything, receiving() as ends:
        every = await box.register(everything.url)
        await box.register(ends.url, EventType.FAILED, EventType.SUCCEEDED)
        elsewhere = await box.register(everything.url, project=OTHER)
        job = await box.submit()
        await box.advance(job, Status.FAILED, Reason.TRAINING_ERROR, detail="first line\nCUDA out of memory")
        async with box.db.write() as session:  # what is rolled back is not announced
            await submission.submit(session, DEFAULT, SPEC, await box.db.now(session))
            await session.rollback()
        sender = box.sender()
        assert await box.round(sender) == 3
        assert await box.round(sender) == 0
        assert sorted(json.loads(got.body)["type"] for got in everything.got) == ["job.failed", "job.queued"]
        assert await box.deliveries(elsewhere, OTHER) == []
    verifier = Verifier(await box.secret(every))
    for got in everything.got:
        verifier.verify(got.body, got.headers)
        with pytest.raises(WebhookVerificationError):
            verifier.verify(got.body.replace(b"job.", b"jab."), got.headers)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(ends.got[0].body, ends.got[0].headers)  # another webhook has another secret
    told = json.loads(ends.got[0].body)
    assert told.pop("timestamp").endswith("+00:00")
    assert told == {
        "type": "job.failed",
        "data": {
            "job": job.id,
            "name": "mine",
            "status": "failed",
            "reason": "training_error",
            "detail": "The training code raised an error; read the last log lines, then change the spec. "
            "(CUDA out of memory)",
            "sequence": 2,
        },
    }
    assert ends.got[0].headers["content-type"] == "application/json"
    assert [row.status for row in await box.deliveries(every)] == [DELIVERED, DELIVERED]
    assert {EventType(f"job.{status}") for status in Status} == set(EventType) - {EventType.STUDENT}


async def test_killed_between_sending_and_marking_is_sent_again_under_the_same_id(
    box: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        webhook = await box.register(receiver.url)
        sent = await box.test(webhook)
        with monkeypatch.context() as patch:
            never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            patch.setattr(outbox, "mark_delivered", lambda *_: never)
            killed = box.sender()
            await killed.tick()
            while not receiver.got:
                await asyncio.sleep(0.01)
            await killed.close()
        second = box.sender()
        assert await box.round(second) == 0  # the lease still holds
        box.db.wait(LEASE.total_seconds() + 1)
        assert await box.round(second) == 1
        assert [got.id for got in receiver.got] == [sent, sent]
        assert receiver.got[0].body == receiver.got[1].body
        assert (await box.deliveries(webhook))[0].status is DELIVERED


async def test_a_sender_that_lost_its_lease_writes_nothing(box: Outbox) -> None:
    async with receiving() as receiver:
        webhook = await box.register(receiver.url)
        await box.test(webhook)
        async with box.db.write() as session:
            late = (await outbox.claim(session, webhook, receiver.url, 1, await box.db.now(session)))[0]
        box.db.wait(LEASE.total_seconds() + 1)
        await box.round(box.sender())
        async with box.db.write() as session:
            now = await box.db.now(session)
            assert await outbox.mark_failed(session, late, 500, "late", now) is None
        row = (await box.deliveries(webhook))[0]
        assert (row.status, row.attempts, row.last_error) == (DELIVERED, 1, None)


async def test_several_senders_share_and_never_send_twice(box: Outbox) -> None:
    async with receiving() as first, receiving() as second:
        for receiver in (first, second):
            await box.register(receiver.url)
        for _ in range(10):
            await box.submit()
        senders = [box.sender() for _ in range(4)]
        while any(await asyncio.gather(*(box.round(sender) for sender in senders))):
            pass
        for receiver in (first, second):
            assert len(receiver.got) == 10
            assert len({got.id for got in receiver.got}) == 10


@pytest.mark.parametrize(("answer", "says"), [(500, "answered 500"), (302, "Redirects are not"), (HANG, "No answer")])
async def test_a_bad_receiver_ends_among_the_dead_and_can_be_replayed(box: Outbox, answer: int, says: str) -> None:
    async with receiving(answer) as receiver:
        webhook = await box.register(receiver.url)
        sent = await box.test(webhook)
        sender = box.sender(timeout=5 if answer else 0.2)
        for number, pause in enumerate((*RETRIES, 0.0), start=1):
            assert await box.round(sender) == 1
            row = (await box.deliveries(webhook))[0]
            assert (row.attempts, row.last_status) == (number, answer or None)
            assert says in (row.last_error or "")
            if row.due_at is not None:
                assert row.status is PENDING
                async with box.db.read() as session:
                    wait = (row.due_at - await box.db.now(session)).total_seconds()
                assert 0.8 * pause - 1 < wait < 1.2 * pause
                assert await box.round(sender) == 0
                box.db.wait(1.2 * pause)
        assert row.status is DEAD
        box.db.wait(1e6)
        assert await box.round(sender) == 0
        assert [row.id for row in await box.deliveries(webhook, status=DEAD)] == [sent]
        receiver.answer = 200
        async with box.db.write() as session:
            await outbox.replay(session, DEFAULT, webhook, sent, await box.db.now(session))
        with pytest.raises(Conflict, match="still being tried"):
            async with box.db.write() as session:
                await outbox.replay(session, DEFAULT, webhook, sent, await box.db.now(session))
        assert await box.round(sender) == 1
        assert {got.id for got in receiver.got} == {sent}
        counted = {"failed": len(RETRIES), "dead": 1, "delivered": 1}
        for outcome, count in counted.items():
            assert box.meters.webhook_attempts.labels(outcome)._value.get() == count
        assert await box.deliveries(webhook, status=DEAD) == []


async def test_a_silent_receiver_delays_nobody_else(box: Outbox) -> None:
    async with receiving(HANG) as silent, receiving() as quick:
        await box.register(silent.url)
        await box.register(quick.url)
        for _ in range(2 * outbox.AT_ONCE):
            await box.submit()
        sender = box.sender(timeout=30)
        running = asyncio.create_task(sender.run())
        try:
            async with asyncio.timeout(10):
                while len(quick.got) < 2 * outbox.AT_ONCE:
                    await asyncio.sleep(0.02)
            assert len(silent.got) == outbox.AT_ONCE
            other = box.sender()
            assert await other.tick() == 0  # nor does a second sender besiege it
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_deleted_webhook_hears_nothing(box: Outbox) -> None:
    async with receiving(500) as receiver:
        webhook = await box.register(receiver.url)
        await box.test(webhook)
        sender = box.sender()
        await box.round(sender)
        async with box.db.write() as session:
            with pytest.raises(NotFound):
                await webhooks.delete(session, OTHER, webhook, await box.db.now(session))
            await webhooks.delete(session, DEFAULT, webhook, await box.db.now(session))
        await box.submit()
        box.db.wait(1e6)
        assert await box.round(sender) == 0
        with pytest.raises(NotFound):
            await box.deliveries(webhook)


async def test_a_project_has_only_so_many(box: Outbox) -> None:
    for _ in range(webhooks.MAX_WEBHOOKS):
        await box.register("http://example.com/")
    with pytest.raises(Conflict, match="delete one first"):
        await box.register("http://example.com/")


def answering(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "192.0.0.192", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "fec0::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::1"),
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(Refused, match="not a public address"):
        await checked(parse("https://example.com/"), False, answering("8.8.8.8", address))


async def test_public_addresses_are_taken() -> None:
    found = ["8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1"]
    assert await checked(parse("https://example.com/"), False, answering(*found)) == found


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "localhost", "[::1]", "[::ffff:7f00:1]"])
async def test_loopback_is_found_under_every_spelling(host: str) -> None:
    with pytest.raises(Refused, match="not a public address"):
        await checked(parse(f"http://{host}/"), False)


FORMS = [
    *("ftp://example.com/", "file:///etc/passwd", "https://user:pass@example.com/", "https://u@example.com/"),
    *("http:///x", "example.com", "", "http://example.com:99999/", "http://exa mple.com/", "http://example.com/#x"),
    *("http://\x00/", "http://[::1%25lo]/", "http://exa%00mple.com/", "http://[1::2::3]/"),
]


@pytest.mark.parametrize("url", FORMS)
def test_urls_of_other_forms_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse(url)


async def test_a_name_that_moves_to_a_private_address_is_not_called(box: Outbox) -> None:
    """DNS rebinding: public when it was registered, private when it is called."""
    async with receiving() as receiver:
        webhook = await box.register(receiver.url.replace("127.0.0.1", "rebound.example"))
        await box.test(webhook)
        box.settings = box.settings.model_copy(update={"webhook_private_addresses": False})
        await box.round(box.sender(resolve=answering("127.0.0.1")))
        assert receiver.got == []
        assert "not a public address" in ((await box.deliveries(webhook))[0].last_error or "")


async def test_the_checked_address_is_called_under_the_urls_name(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the client nor a proxy resolves the name again, and the certificate must be the name's."""
    authority = trustme.CA()
    serving, trusting = (ssl.SSLContext(p) for p in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
    authority.issue_cert("hooks.example").configure_cert(serving)
    authority.configure_trust(trusting)
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, verify=trusting))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with receiving(tls=serving) as receiver:
        port = receiver.url.split(":")[2]
        good = await box.register(f"https://hooks.example:{port}")
        bad = await box.register(f"https://other.example:{port}")
        for webhook in (good, bad):
            await box.test(webhook)
        closed = "127.0.0.2"  # nothing listens there, so the next address is tried
        await box.round(box.sender(resolve=answering(closed, "127.0.0.1")))
        assert [got.headers["host"] for got in receiver.got] == [f"hooks.example:{port.split('/')[0]}"]
        assert (await box.deliveries(good))[0].status is DELIVERED
        assert "certificate" in ((await box.deliveries(bad))[0].last_error or "")
