"""The gateway's HTTP side without Ray: what it accepts, what it refuses and how it says so."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from deploy import gateway
from deploy.asked import Routed
from deploy.gateway import Api, Model
from service.images import ImagesAnswer, ModelList
from service.serving import Served, serve_config
from service.settings import Settings

DIGITS = Served(
    name="digits",
    app="end-1",
    student_url="file:///student",
    teacher_source="builtin:digits",
    steps=(4, 2),
    teacher_steps=50,
    num_classes=10,
    text=False,
    image_size=(1, 8, 16),
    created=7,
)
BLOBS = replace(
    DIGITS, name="blobs", app="end-2", teacher_source=None, steps=(1,), num_classes=None, image_size=(3, 8, 8)
)
SCENES = replace(BLOBS, name="scenes", app="end-4", teacher_source="file:///teacher", text=True)


class Method:
    """`handle.method.remote(...)`, as Serve has it."""

    def __init__(self, call: Any) -> None:
        self.remote = call


class FakeReplica:
    """Draws text: the image says what was asked for."""

    def __init__(self) -> None:
        self.ready, self.generate = Method(self._ready), Method(self._generate)
        self.free = asyncio.Event()
        self.free.set()
        self.calls: list[tuple[Any, ...]] = []

    async def _ready(self) -> None:
        pass

    async def _generate(self, *asked: Any) -> list[str]:
        self.calls.append(asked)
        await self.free.wait()
        teacher, subjects, seeds, steps, guidance = asked
        texts = [f"{teacher} {subjects and subjects[i]} {seed} {steps} {guidance}" for i, seed in enumerate(seeds)]
        return [base64.b64encode(text.encode()).decode() for text in texts]


@pytest.fixture
def replica() -> FakeReplica:
    return FakeReplica()


def api_for(replica: FakeReplica, key_sha256: str | None = None, *, open: bool = True, in_flight: int = 32) -> Api:
    async def connect(app: str) -> Any:
        if app == "end-3":
            raise KeyError(app)
        return replica

    config = serve_config([DIGITS, BLOBS, replace(BLOBS, name="slow", app="end-3"), SCENES], Settings())
    table = config["applications"][0]["deployments"][0]["user_config"]["models"]
    api = Api(key_sha256, open)
    for routed in map(Routed.model_validate, table):
        api.models[routed.name] = Model(routed, connect, 16, in_flight)
    return api


def client_for(api: Api) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api.asgi), base_url="http://gateway")


@pytest.fixture
async def client(replica: FakeReplica, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(gateway, "LOADING_SECONDS", 0.1)
    async with client_for(api_for(replica)) as client:
        yield client


async def generate(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/images/generations", json={"model": "digits"} | body)


def drawn(answer: httpx.Response) -> list[str]:
    images = ImagesAnswer.model_validate_json(answer.content).data
    return [base64.b64decode(image.b64_json).decode() for image in images]


async def test_models(client: httpx.AsyncClient) -> None:
    models = ModelList.model_validate_json((await client.get("/v1/models")).content).data
    assert [model.id for model in models] == ["digits", "digits:teacher", "blobs", "slow", "scenes", "scenes:teacher"]
    assert (models[0].steps, models[1].steps) == ([4, 2], [])
    assert (models[0].num_classes, models[0].image_size) == (10, [1, 8, 16])
    assert [model.text for model in models] == [False] * 4 + [True] * 2


async def test_defaults_and_choices(client: httpx.AsyncClient) -> None:
    assert drawn(await generate(client, prompt=" 7 ", seed=5, n=2)) == ["False 7 5 4 None", "False 7 6 4 None"]
    assert drawn(await generate(client, prompt="x", class_label=3, seed=1, num_inference_steps=2, size="16x8")) == [
        "False 3 1 2 None"
    ]
    assert drawn(await generate(client, model="digits:teacher", prompt="1", seed=2, guidance_scale=3)) == [
        "True 1 2 50 3.0"
    ]
    assert drawn(await generate(client, model="blobs", seed=9, size="auto")) == ["False None 9 1 None"]


async def test_the_seed_that_was_drawn_gives_the_image_again(client: httpx.AsyncClient) -> None:
    first = await generate(client, prompt="7", n=3)
    seeds = [image["seed"] for image in first.json()["data"]]
    assert seeds == list(range(seeds[0], seeds[0] + 3))
    assert drawn(await generate(client, prompt="7", n=3, seed=seeds[0])) == drawn(first)


async def test_a_prompt_reaches_the_model_as_it_was_sent(client: httpx.AsyncClient) -> None:
    asked = {"model": "scenes", "prompt": " a café, 雪\n", "seed": 5}
    assert drawn(await generate(client, **asked, n=2)) == [f"False {asked['prompt']} {seed} 1 None" for seed in (5, 6)]
    assert drawn(await generate(client, model="scenes", prompt="7", seed=1, size="8x8")) == ["False 7 1 1 None"]
    assert drawn(await generate(client, model="scenes:teacher", prompt="a cat", seed=2, guidance_scale=3)) == [
        "True a cat 2 50 3.0"
    ]


async def test_prompts_of_several_clients_share_a_batch(replica: FakeReplica) -> None:
    replica.free.clear()
    async with client_for(api_for(replica)) as client:
        first = asyncio.create_task(generate(client, model="scenes", prompt="first", seed=0))
        while not replica.calls:
            await asyncio.sleep(0)
        others = [
            asyncio.create_task(generate(client, model="scenes", prompt=prompt, seed=seed, n=2))
            for seed, prompt in ((1, "a cat"), (4, "a dog"))
        ]
        for _ in range(50):
            await asyncio.sleep(0)
        replica.free.set()
        assert drawn(await first) == ["False first 0 1 None"]
        assert [drawn(await other) for other in others] == [
            ["False a cat 1 1 None", "False a cat 2 1 None"],
            ["False a dog 4 1 None", "False a dog 5 1 None"],
        ]
    assert replica.calls[1:] == [(False, ["a cat", "a cat", "a dog", "a dog"], [1, 2, 4, 5], 1, None)]


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        ({"model": "digit"}, 404, "model", "GET /v1/models"),
        ({"model": "blobs:teacher"}, 404, "model", "no model"),
        ({}, 400, "prompt", "class_label from 0 to 9"),
        ({"prompt": "a seven"}, 400, "prompt", "such as"),
        ({"prompt": "٧٧"}, 400, "prompt", "0 to 9"),
        ({"prompt": "²"}, 400, "prompt", "such as"),
        ({"class_label": 10}, 400, "class_label", "0 to 9"),
        ({"prompt": "7", "size": "8x16"}, 400, "size", "16x8"),
        ({"prompt": "7", "size": "big"}, 400, "size", "size"),
        ({"prompt": "7", "num_inference_steps": 3}, 400, "num_inference_steps", "4 or 2"),
        ({"prompt": "7", "guidance_scale": 2}, 400, "guidance_scale", "built in"),
        ({"prompt": "7", "n": 17}, 400, "n", "16"),
        ({"prompt": "7", "quality": "hd"}, 400, "quality", "not permitted"),
        ({"prompt": "7", "response_format": "url"}, 400, "response_format", "b64_json"),
        ({"model": "blobs", "prompt": "a blob"}, 400, "prompt", "unconditional"),
        ({"model": "blobs", "class_label": 1}, 400, "class_label", "unconditional"),
        ({"model": "scenes"}, 400, "prompt", "send one"),
        ({"model": "scenes", "prompt": ""}, 400, "prompt", "send one"),
        ({"model": "scenes:teacher", "prompt": " \n"}, 400, "prompt", "send one"),
        ({"model": "scenes", "prompt": "a cat", "class_label": 1}, 400, "class_label", "leave class_label out"),
        ({"model": "scenes", "class_label": 1}, 400, "class_label", "leave class_label out"),
        ({"model": "scenes", "prompt": "a cat", "size": "16x8"}, 400, "size", "8x8"),
        ({"model": "scenes", "prompt": "a cat", "guidance_scale": 2}, 400, "guidance_scale", "built in"),
        ({"model": "scenes", "prompt": 7}, 400, "prompt", "string"),
        ({"model": "scenes", "prompt": "x" * 4001}, 400, "prompt", "4000"),
        ({"model": "slow"}, 503, None, "being loaded"),
    ],
)
async def test_refusals_name_the_field_and_the_fix(
    client: httpx.AsyncClient, replica: FakeReplica, body: dict[str, Any], status: int, param: str | None, says: str
) -> None:
    answer = await generate(client, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert says in error["message"]
    assert error["type"]
    assert error["code"]
    assert ("retry-after" in answer.headers) == (status == 503)
    assert not replica.calls


async def test_what_is_no_json_or_too_long(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/images/generations", content=b"{")).status_code == 400
    assert (await client.post("/v1/images/generations", content=b" " * 200_000)).status_code == 413
    assert (await client.get("/v1/images/generations")).status_code == 405
    assert (await client.get("/v2")).json()["error"]["code"] == "not_found"


async def test_too_many_at_once_are_told_when_to_come_back(replica: FakeReplica) -> None:
    replica.free.clear()
    async with client_for(api_for(replica, in_flight=16)) as client:
        await asyncio.sleep(0)
        held = asyncio.create_task(generate(client, prompt="1", n=16))
        while not replica.calls:
            await asyncio.sleep(0)
        refused = await generate(client, prompt="2")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        replica.free.set()
        assert (await held).status_code == 200
        assert (await generate(client, prompt="2")).status_code == 200


async def test_a_client_that_leaves_takes_its_request_along(replica: FakeReplica) -> None:
    replica.free.clear()
    api = api_for(replica)
    scope = {"type": "http", "method": "POST", "path": "/v1/images/generations", "headers": [], "query_string": b""}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with client_for(api) as client:
        first = asyncio.create_task(generate(client, prompt="1"))
        while not replica.calls:
            await asyncio.sleep(0)
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": b'{"model": "digits", "prompt": "2", "n": 15}'})
        leaver = asyncio.create_task(api.asgi(scope, messages.get, send))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not leaver.done()
        messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(leaver, timeout=5)
        assert sent[0]["status"] == 499
        replica.free.set()
        assert (await first).status_code == 200
        assert (await generate(client, prompt="3", n=16)).status_code == 200
    assert [labels[0] for _, labels, _, _, _ in replica.calls] == [1, 3]


async def test_the_key_is_asked_for_where_there_is_one(replica: FakeReplica) -> None:
    sha256 = hashlib.sha256(b"secret").hexdigest()
    async with client_for(api_for(replica, sha256)) as client:
        await asyncio.sleep(0)
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/v1/models", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get("/v1/models", headers={"Authorization": "Bearer secret"})).status_code == 200
        assert (await generate(client, prompt="1")).status_code == 401


async def test_without_a_key_nobody_is_served_off_loopback(replica: FakeReplica) -> None:
    config = serve_config([], Settings(host="0.0.0.0"))["applications"][0]["args"]
    assert (config["open"], config["key_sha256"]) == (False, None)
    async with client_for(api_for(replica, None, open=False)) as client:
        assert (await client.get("/v1/models", headers={"Authorization": "Bearer None"})).status_code == 401


def test_the_config_is_the_whole_set_and_a_new_endpoint_leaves_the_gateway_alone() -> None:
    before, after = (serve_config(served, Settings()) for served in ([DIGITS], [DIGITS, BLOBS]))
    assert [app["name"] for app in after["applications"]] == ["gateway", "end-1", "end-2"]
    assert before["applications"][0]["args"] == after["applications"][0]["args"]
    assert before["applications"][1] == after["applications"][1]
    assert before["http_options"]["host"] == "127.0.0.1"
