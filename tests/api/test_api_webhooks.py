"""Webhooks over HTTP: register, try, see, replay, delete; what is refused, and that the process itself delivers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from api_fixtures import Server
from fake_cluster import FakeCluster
from fastapi import FastAPI
from receiver import receiving
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook as Verifier

from api.app import create_app
from service.deliver import Deliverer
from service.settings import Settings
from service.tables import AuditEntry

PUBLIC = "http://93.184.215.14/hook"


async def create(server: Server, url: str = PUBLIC, *events: str) -> dict[str, Any]:
    answer = await server.http.post("/v1/webhooks", json={"url": url, "events": list(events)})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['id']}"
    body: dict[str, Any] = answer.json()
    return body


async def test_registered_shown_once_and_deleted(server: Server) -> None:
    made = await create(server, PUBLIC, "job.failed", "job.student")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (await server.http.get(f"/v1/webhooks/{made['id']}")).json() == made
    assert (await server.http.get("/v1/webhooks")).json()["data"] == [made]
    assert made["events"] == ["job.failed", "job.student"]
    await server.submit()
    assert (await server.http.get(f"/v1/webhooks/{made['id']}/deliveries")).json()["data"] == []
    assert (await server.http.delete(f"/v1/webhooks/{made['id']}")).json() == made
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries")):
        answer = await server.http.request(method, f"/v1/webhooks/{made['id']}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await server.http.get("/v1/webhooks")).json()["data"] == []
    async with server.behind.db.read() as session:
        rows = (await session.scalars(select(AuditEntry).where(AuditEntry.target == made["id"]))).all()
    assert [row.action for row in rows] == ["webhook.create", "webhook.delete"]
    assert secret not in str([row.data for row in rows])


async def test_a_repeated_create_makes_one_and_hides_the_secret(server: Server) -> None:
    key = {"Idempotency-Key": "once"}
    first, again = [await server.http.post("/v1/webhooks", json={"url": PUBLIC}, headers=key) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == {**first.json(), "secret": None}
    assert (await server.rows())["webhooks"] == 1


REFUSED = {
    "http://127.0.0.1:8700/v1/jobs": "not a public address",
    "http://localhost/": "not a public address",
    "http://169.254.169.254/latest/meta-data": "not a public address",
    "https://[::ffff:10.0.0.1]/": "not a public address",
    "https://user:secret@93.184.215.14/": "user name",
    "ftp://93.184.215.14/": "Only http",
    "https://no-such-host.invalid/": "cannot be found",
    "": "at least 1",
}


async def test_urls_that_must_not_be_called_are_refused(server: Server) -> None:
    for url, says in REFUSED.items():
        answer = await server.http.post("/v1/webhooks", json={"url": url})
        assert answer.status_code == 422, url
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/url"
        assert says in error["detail"], url
    assert (await server.rows())["webhooks"] == 0


async def test_unknown_event_types_are_named(server: Server) -> None:
    answer = await server.http.post("/v1/webhooks", json={"url": PUBLIC, "events": ["job.succeeded", "job.done"]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/events/1"
    assert "job.failed" in answer.json()["errors"][0]["detail"]


async def test_deliveries_are_listed_by_status_and_replayed(server: Server) -> None:
    settings = server.settings.model_copy(update={"webhook_private_addresses": True})
    webhook = await create(server)
    path = f"/v1/webhooks/{webhook['id']}"
    sender = Deliverer(server.behind.db, settings, server.behind.meters, resolve=nowhere)
    test = (await server.http.post(f"{path}/test")).json()
    assert (test["type"], test["status"], test["attempts"]) == ("webhook.test", "pending", 0)
    job = await server.submit(name="mine")
    listed = (await server.http.get(f"{path}/deliveries")).json()["data"]
    assert [one["type"] for one in listed] == ["job.queued", "webhook.test"]
    assert listed[0]["payload"]["data"]["job"] == job["id"]
    replay = f"{path}/deliveries/{test['id']}/replay"
    assert (await server.http.post(replay)).status_code == 409
    await sender.tick()
    await sender.settle()
    await sender.close()
    listed = (await server.http.get(f"{path}/deliveries", params={"status": "pending"})).json()["data"]
    assert {one["attempts"] for one in listed} == {1}
    assert "cannot be found" in listed[0]["last_error"]
    assert (await server.http.get(f"{path}/deliveries", params={"status": "dead"})).json()["data"] == []
    page = (await server.http.get(f"{path}/deliveries", params={"limit": 1})).json()
    rest = (await server.http.get(f"{path}/deliveries", params={"limit": 1, "after": page["next"]})).json()
    assert [one["id"] for one in page["data"] + rest["data"]] == [one["id"] for one in reversed(sorted_by_id(listed))]
    assert (await server.http.post(f"{path}/deliveries/dlv_nothing/replay")).status_code == 404


def sorted_by_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["id"]))


async def nowhere(host: str, port: int) -> list[str]:
    raise OSError("there is no network here")


def client(app: FastAPI, settings: Settings) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {settings.api_key_file().read_text().strip()}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await check():
            await asyncio.sleep(0.05)


async def test_the_api_process_delivers(settings: Settings, database_url: str, cluster: FakeCluster) -> None:
    changes = {"database_url": database_url, "reconcile_in_process": True, "webhook_private_addresses": True}
    app = create_app(settings := settings.model_copy(update=changes), cluster)
    async with app.router.lifespan_context(app), receiving() as receiver, client(app, settings) as http:
        server = Server(app, http, settings, cluster)
        webhook = await create(server, receiver.url, "job.queued")
        await http.post(f"/v1/webhooks/{webhook['id']}/test")
        await server.submit()

        async def delivered() -> bool:
            found = await http.get(f"/v1/webhooks/{webhook['id']}/deliveries", params={"status": "delivered"})
            return len(found.json()["data"]) == 2

        await until(delivered)
        for got in receiver.got:
            Verifier(webhook["secret"]).verify(got.body, got.headers)

        async def counted() -> bool:
            return 'fewstep_webhook_attempts_total{outcome="delivered"} 2.0' in (await http.get("/metrics")).text

        await until(counted)  # a moment after the row says so
