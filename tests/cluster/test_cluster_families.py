"""Every family the whole way, on the real platform: a teacher's folder, two methods, plain diffusers, an endpoint."""

import base64
import io
from typing import Any

import numpy as np
import openai
import pytest
import torch
from PIL import Image
from tiny_all import TINY
from tiny_trained import trained

from api.client import Client
from service.families import PIPELINES
from service.status import Status
from workers.families.registry import FAMILIES

pytestmark = [pytest.mark.ray, pytest.mark.slow]

METHODS: list[dict[str, Any]] = [
    {"kind": "dmd2", "iterations": 2, "batch_size": 2, "fake_updates": 1, "guidance_scale": 2.0},
    {"kind": "kd", "iterations": 2, "batch_size": 2, "pairs": 4, "pair_steps": 2},
]
"""One that follows a difference of scores on the student's own samples, one that learns the teacher's pairs."""

NAMES = [name for name, tiny in TINY.items() if tiny.family.pipeline.__name__ in FAMILIES]


def bounded(name: str) -> Any:
    """Made so that its samples are of the size of images, as those of random weights that predict epsilon are not."""
    pipe, family = TINY[name].make(), TINY[name].family
    if name in ("stable-diffusion-1", "sdxl"):
        return trained(pipe, family)
    if not PIPELINES[type(pipe).__name__].flow:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type="v_prediction")
    return pipe


@pytest.mark.parametrize("name", NAMES)
def test_a_family_goes_the_whole_way(platform, name: str) -> None:
    family, teacher = TINY[name].family, f"whole-way-{name}".replace("_", "-")
    bounded(name).save_pretrained(platform.home / "store" / "teachers" / teacher, safe_serialization=True)
    with Client(platform.url, platform.key) as client:
        registered = client.register_teacher(teacher, f"teachers/{teacher}")
        asked: dict[str, Any] = {"prompts": ["a cat", "two dogs"]} if registered.text else {}
        jobs = []
        for method in METHODS:
            spec = {"teacher": teacher, "method": method, "preview_every": 2} | asked
            spec |= {"evaluation": {"samples": 100, "teacher_steps": 2}}
            assert client.call("POST", "/v1/jobs:validate", json=spec).json()["total_steps"] == 2
            jobs.append(client.submit(spec).id)
        for number, job in enumerate(client.wait(id, timeout=600) for id in jobs):
            assert job.status is Status.SUCCEEDED, job.detail
            served_as = f"{teacher}-{number}"  # one that is being deleted keeps its name for a while
            manifest = next((platform.home / "store" / "jobs" / job.id / "students").glob("*/manifest.json"))
            plain = family.pipeline.from_pretrained(manifest.parent)
            generator = torch.Generator().manual_seed(7)
            size = {} if name == "dit" else dict(zip(("height", "width"), registered.image_size[1:], strict=True))
            told = size | family.plain_arguments | {"num_inference_steps": 1, "generator": generator}
            expected = plain(["a red bird"] if registered.text else [3], **told).images[0]

            client.create_endpoint(served_as, job.students[0])
            endpoint = client.wait_endpoint(served_as, timeout=300)
            assert endpoint.status == "ready", endpoint.detail
            gateway = openai.OpenAI(base_url=endpoint.url, api_key="any")
            extra = {"seed": 7} | ({} if registered.text else {"class_label": 3})
            answer = gateway.images.generate(model=served_as, prompt="a red bird", extra_body=extra)
            assert answer.data
            assert answer.data[0].b64_json
            served = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))).astype(int)
            assert np.abs(served - np.asarray(expected).astype(int)).max() <= 1  # of 255
            client.delete_endpoint(served_as)
