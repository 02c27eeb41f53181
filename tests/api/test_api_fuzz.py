"""Thousands of generated specs, right, nearly right and absurd: no answer is a server error."""

import asyncio
import json
from typing import Any

import pytest
from api_fixtures import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.methods import METHODS
from service.spec import JobSpec

SPECS, AT_ONCE = 2000, 20

numbers = st.one_of(
    st.integers(), st.integers(-3, 3), st.floats(), st.sampled_from([2**31, 2**53, 2**63, 10**40, 1e308, -0.0])
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(st.characters(), max_size=8), st.just("\0\ud800"))
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


def filled(model: Any, required: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of a model's fields, their values small numbers, and now and then anything."""
    value = st.one_of(st.integers(1, 9), st.sampled_from([64, 1e-3, 0.5]), anything)
    optional = {name: value for name in model.model_fields if name not in required}
    return st.fixed_dictionaries({}, optional=optional)


def of_kind(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return filled(METHODS[kind], ("kind",)).map(lambda chosen: {"kind": kind, **chosen})


methods = st.one_of(
    *(of_kind(kind) for kind in METHODS),
    st.fixed_dictionaries({"kind": anything}),
    anything,
)
specs = st.one_of(
    st.builds(
        lambda rest, method, teacher: {**rest, "method": method, "teacher": teacher},
        filled(JobSpec, ("method", "stages", "teacher")),
        methods,
        st.one_of(st.just("digits"), leaves),
    ),
    st.fixed_dictionaries({"teacher": st.just("digits"), "method": methods}),
    st.fixed_dictionaries(
        {"teacher": st.just("digits"), "stages": st.lists(st.fixed_dictionaries({"method": methods}), max_size=3)}
    ),
    anything,
)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs:validate"])
async def test_no_spec_breaks_the_server(server: Server, path: str) -> None:
    loop = asyncio.get_running_loop()
    seen: dict[int, int] = {}

    async def post(spec: Any) -> None:
        content = json.dumps(spec).encode()
        answer = await server.http.post(path, content=content, headers={"Content-Type": "application/json"})
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
        assert answer.status_code in (200, 202, 400, 413, 422), (answer.text, spec)
        if answer.status_code == 422:
            assert all(error["detail"].strip() for error in answer.json()["errors"])

    @settings(
        max_examples=SPECS // AT_ONCE // 4,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(specs, min_size=AT_ONCE, max_size=AT_ONCE))
    def batch(several: list[Any]) -> None:
        for spec in several:
            asyncio.run_coroutine_threadsafe(post(spec), loop).result()

    await asyncio.to_thread(batch)
    assert sum(seen.values()) >= SPECS // 4
    assert min(seen.get(422, 0), seen.get(200, 0) + seen.get(202, 0)) > 10, seen
