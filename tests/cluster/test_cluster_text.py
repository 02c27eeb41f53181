"""A text-to-image teacher, from its folder in the store to an endpoint that takes prompts: all parts real."""

import base64
import io

import numpy as np
import openai
import pytest
import tiny_stable_diffusion
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from tiny_trained import trained

from api.client import Client
from service.status import Status
from workers.families.sdxl import SDXL

pytestmark = pytest.mark.ray

SPEC = {
    "teacher": "tiny-sdxl",
    "prompts": ["a cat", "two dogs", "a boat"],
    "method": {"kind": "dmd2", "iterations": 3, "batch_size": 4, "guidance_scale": 3.0},
    "checkpoint_every": 2,
    "preview_every": 2,
    "evaluation": {"samples": 100, "teacher_steps": 2},
}


def test_a_pipelines_student_is_a_pipeline_and_answers_prompts(platform) -> None:
    teacher = trained(tiny_stable_diffusion.sdxl(), SDXL).to(torch.float16)  # as it is published
    teacher.save_pretrained(platform.home / "store" / "teachers" / "tiny-sdxl", safe_serialization=True)
    with Client(platform.url, platform.key) as client:
        registered = client.register_teacher("tiny-sdxl", "teachers/tiny-sdxl")
        assert (registered.family, registered.text, registered.image_size) == ("sdxl", True, [3, 16, 16])
        assert client.call("POST", "/v1/jobs:validate", json=SPEC).json()["total_steps"] == 3

        job = client.wait(client.submit(SPEC).id, timeout=300)
        assert job.status is Status.SUCCEEDED, job.detail
        student = client.student(job.students[0])
        assert student.text
        folder = next((platform.home / "store" / "jobs" / job.id / "students").glob("*/manifest.json")).parent
        plain = StableDiffusionXLPipeline.from_pretrained(folder)
        generator = torch.Generator().manual_seed(7)
        expected = plain("a red bird", num_inference_steps=1, guidance_scale=1.0, generator=generator).images[0]

        client.create_endpoint("birds", student.id)
        endpoint = client.wait_endpoint("birds", timeout=180)
        assert endpoint.status == "ready", endpoint.detail
        gateway = openai.OpenAI(base_url=endpoint.url, api_key="any")
        answer = gateway.images.generate(model="birds", prompt="a red bird", extra_body={"seed": 7})
        assert answer.data
        assert answer.data[0].b64_json
        served = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))).astype(int)
        assert np.abs(served - np.asarray(expected).astype(int)).max() <= 1  # of 255
        with pytest.raises(openai.BadRequestError, match="prompt"):
            gateway.images.generate(model="birds", prompt="")
        client.delete_endpoint("birds")
