"""A student's archive, in a virtual environment that has only diffusers and torch, against the endpoint."""

import base64
import io
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api.client import Client
from service.status import Status

ROOT = Path(__file__).parents[2]
SEEDS = list(range(100, 110))
PROGRAM = """
import sys
import numpy, torch
from diffusers import ConsistencyModelPipeline

folder, steps, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
pipeline = ConsistencyModelPipeline.from_pretrained(folder)
pipeline.set_progress_bar_config(disable=True)
seeds = range(100, 110)
images = pipeline(
    batch_size=10,
    class_labels=list(range(10)),
    num_inference_steps=steps,
    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    output_type="np",
).images
numpy.save(out, images)
assert "service" not in sys.modules and "workers" not in sys.modules
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_student_needs_only_diffusers_and_torch(platform, tmp_path: Path) -> None:
    environment = tmp_path / "plain"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "diffusers", "torch"], check=True
    )

    with Client(platform.url, platform.key) as client:
        job = client.submit({"teacher": "digits", "method": {"kind": "consistency", "iterations": 60}})
        job = client.wait(job.id)
        assert job.status is Status.SUCCEEDED, job.detail
        student = next(client.students(job.id))
        archive = client.download(student.archive_url, tmp_path / "student.zip")
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(tmp_path / "student")
        client.create_endpoint("plain", student.id)
        assert client.wait_endpoint("plain").status == "ready"

        for steps in student.steps:
            out = tmp_path / f"{steps}.npy"
            subprocess.run([python, "-I", "-c", PROGRAM, tmp_path / "student", str(steps), out], check=True)
            plain = np.load(out)[..., 0]
            for i, seed in enumerate(SEEDS):
                answer = client.generate("plain", class_label=i, seed=seed, num_inference_steps=steps)
                png = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
                served = np.asarray(png, dtype=np.float64) / 255
                # A PNG has 8 bits a pixel: the nearest of its levels to the plain image must be the one served.
                assert np.abs(np.round(plain[i] * 255) / 255 - served).max() <= 1e-4, (steps, seed)
        client.delete_endpoint("plain")
    print(f"{sys.executable}: {len(student.steps) * len(SEEDS)} images equal")
