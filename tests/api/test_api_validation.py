"""What `POST /v1/jobs:validate` says of a job: its steps, its students, what it needs, and what to change."""

import dataclasses
import json
from typing import Any

import pytest
from api_fixtures import SPEC, Server, command_line
from sqlalchemy import update

from api.validation import Validation
from service.tables import Teacher

GIB = 2**30


async def validated(server: Server, **changes: Any) -> Validation:
    answer = await server.http.post("/v1/jobs:validate", json={**SPEC, **changes})
    assert answer.status_code == 200, answer.text
    return Validation.model_validate(answer.json())


def tell(server: Server, **settings: float) -> None:
    """What the operator says of devices."""
    told = server.behind.settings.model_copy(update=settings)
    server.app.state.services = dataclasses.replace(server.behind, settings=told)


async def test_validate_costs_nothing_and_says_all(server: Server) -> None:
    before = await server.rows()
    found = await validated(server)
    assert found.spec.stages is not None
    assert found.total_steps == found.spec.total_steps() > 0
    assert found.students[-1] == [1]
    assert found.estimated_memory_bytes is not None
    assert 2e6 < found.estimated_memory_bytes < 1e9
    assert found.memory is not None
    assert sum(found.memory.model_dump().values()) == found.estimated_memory_bytes
    assert min(found.memory.weights, found.memory.optimizer, found.memory.gradients, found.memory.activations) > 0
    assert found.memory.encoders == 0, "the digits come without any"
    assert found.memory_phase == "training"
    assert (found.step_seconds, found.advice) == (None, []), "nobody has said what devices there are"
    assert await server.rows() == before


async def test_seconds_follow_from_the_speed_that_devices_keep_up(server: Server) -> None:
    tell(server, device_tflops=2.0)
    found = await validated(server)
    assert found.step_flops is not None
    assert found.step_flops > 0
    assert found.step_seconds == pytest.approx(found.step_flops / 2e12)
    halved = await validated(server, resources={"workers": 2})
    assert halved.step_seconds == pytest.approx(found.step_seconds / 2)


async def test_advice_is_what_makes_it_fit(server: Server) -> None:
    method = {"kind": "dmd2", "batch_size": 64}
    whole = await validated(server, method=method)
    assert whole.estimated_memory_bytes is not None
    tell(server, device_memory_gib=whole.estimated_memory_bytes / GIB)
    assert (await validated(server, method=method)).advice == []

    tell(server, device_memory_gib=0.75 * whole.estimated_memory_bytes / GIB)
    advice = (await validated(server, method=method)).advice
    assert advice[0].startswith("with micro_batches 2 it takes ")
    assert not any("fsdp" in sentence for sentence in advice), "there is one worker"
    followed = await validated(server, method={**method, "micro_batches": 2})
    assert followed.advice == []

    tell(server, device_memory_gib=0.001)
    (sentence,) = (await validated(server, method=method)).advice
    assert sentence.startswith("nothing that a spec can change makes it fit into the 0.001 GiB of a device: with ")


async def test_a_teacher_that_was_registered_before_has_no_estimate(server: Server) -> None:
    async with server.behind.db.write() as session:
        await session.execute(update(Teacher).values(footprint=None))
    tell(server, device_memory_gib=0.001, device_tflops=1)
    found = await validated(server)
    assert (found.estimated_memory_bytes, found.memory, found.step_flops, found.step_seconds) == (None,) * 4
    assert found.advice == []
    assert found.total_steps > 0


async def test_the_command_line_says_it_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    say = command_line(server, monkeypatch)
    tell(server, device_memory_gib=0.001, device_tflops=1)
    told = (await validated(server)).model_dump(mode="json")
    said = " ".join((await say("jobs", "validate", "--method", "progressive")).split())
    assert said.startswith(f"0 steps {told['total_steps']} students in 8; in 4; in 2; in 1 memory ")
    assert " MiB on each worker, training: weights " in said
    assert "encoders" not in said
    assert f"too large {told['advice'][0]}" in said
    assert json.loads((await say("jobs", "validate", "--method", "progressive", "--json"))[2:]) == told
    assert (await say("jobs", "validate", "--method", "nothing")).startswith("1 ")
    async with server.behind.db.write() as session:
        await session.execute(update(Teacher).values(footprint=None))
    assert "memory not known: the teacher was registered" in " ".join(
        (await say("jobs", "validate", "--method", "kd")).split()
    )
