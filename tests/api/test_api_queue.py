"""The queue over HTTP: what a job waits for, and how high its priority may be."""

from api_fixtures import SPEC, Server
from sqlalchemy import update

from service.projects import DEFAULT
from service.tables import Project


async def test_a_job_says_what_it_waits_for_until_it_starts(server: Server) -> None:
    """The cluster has four CPUs."""
    first = await server.submit(resources={"cpus_per_worker": 3}, priority=1)
    assert (first["priority"], first["preemptions"], first["waiting"]) == (1, 0, None)
    await server.tick()
    large = await server.submit(resources={"cpus_per_worker": 2})
    small = await server.submit(resources={"cpus_per_worker": 2})
    await server.tick()
    seen = {one["id"]: one["waiting"] for one in [await job(server, each["id"]) for each in (first, large, small)]}
    assert seen == {
        first["id"]: None,
        large["id"]: "needs 2 CPUs, 1 free",
        small["id"]: "needs 2 CPUs, 1 free; 1 job is ahead of it",
    }
    await server.http.post(f"/v1/jobs/{small['id']}/cancel")
    assert (await job(server, small["id"]))["waiting"] is None
    listed = (await server.http.get("/v1/jobs")).json()["data"]
    assert {one["waiting"] for one in listed} == {None}


async def test_priority_beyond_the_projects_is_refused(server: Server) -> None:
    async with server.behind.db.write() as session:
        await session.execute(update(Project).where(Project.id == DEFAULT).values(max_priority=2))
    before = await server.rows()
    for path in ("/v1/jobs", "/v1/jobs:validate"):
        answer = await server.http.post(path, json={**SPEC, "priority": 3})
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/priority"
        assert "2 at most" in error["detail"]
        assert (await server.http.post(path, json={**SPEC, "priority": 2})).status_code in (200, 202)
    assert (await server.rows())["jobs"] == before["jobs"] + 1


async def job(server: Server, job_id: str) -> dict[str, object]:
    body: dict[str, object] = (await server.http.get(f"/v1/jobs/{job_id}")).json()
    return body
