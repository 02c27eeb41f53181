"""An endpoint against the same student in one process, and what it does when four times too many clients come.

One student of the digits, 4 steps, one image a request. Clients are closed loops on one connection each; who is refused
waits for as long as the 429's Retry-After says. In-process: batches of 32 without encoding, the better of one thread
and all, before and after.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import torch
from load import Load, load
from pydantic import SecretStr
from running import free_port

from deploy.child import Child, end, survivors
from deploy.head import READY, Head
from service.cluster import RayCluster
from service.serving import IN_FLIGHT, MAX_BATCH, Served, serve_config
from service.settings import Settings
from workers.artifact import Student, load_student, write_manifest, write_model
from workers.diffusion.sampler import SamplerSpec
from workers.models.unet2d import load_teacher, scheduler_config
from workers.store import local_folder

STEPS = 4
SECONDS = 8.0


def make_student(folder: Path) -> None:
    """The digits teacher's own network as a four-step student: the same cost as any other of its size."""
    teacher = local_folder("builtin:digits")
    sampler = SamplerSpec("ddim", (STEPS,), 1000)
    write_model(folder, load_teacher(teacher).unet, sampler, scheduler_config(teacher))
    write_manifest(folder, sampler, {})


def in_process(student: Student, threads: int) -> float:
    """Images per second in batches as large as a replica's."""
    torch.set_num_threads(threads)
    started, images = time.monotonic(), 0
    while (spent := time.monotonic() - started) < SECONDS / 2:
        student.generate(torch.randint(10, (MAX_BATCH,)), range(images, images + MAX_BATCH), STEPS)
        images += MAX_BATCH
    return images / spent


async def deploy(settings: Settings, student: Path) -> None:
    served = Served("bench", "end-bench", student.as_uri(), None, (STEPS,), 50, 10, False, (1, 8, 8), 0)
    cluster = RayCluster(settings)
    await cluster.apply_serve(serve_config([served], settings))
    while not all(app.status == "RUNNING" for app in (await cluster.serve_apps()).values()):
        await asyncio.sleep(0.2)
    await cluster.close()


def row(what: str, met: Load, reference: float, bar: str) -> None:
    refused = f"{len(met.refusals)} in {1e3 * max(met.refusals):.0f} ms at most" if met.refusals else "0"
    times = f"{met.quantile(0.5):6.0f} {met.quantile(0.99):6.0f}"
    print(f"{what:28}{met.rate:9.0f} {met.rate / reference:8.2f}   {bar:8} {times}   {refused}")
    assert not met.others, f"answers that nobody expected: {met.others}"


def main() -> None:
    threads = {1, os.cpu_count() or 1}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        make_student(home / "student")
        head = Head(home)
        ray = Child(f"ray:{home}", head.command(), head.env(), home / "ray.log")
        try:
            while READY not in ray.output():
                assert ray.exit_status() is None, ray.output()
                time.sleep(0.2)
            token = SecretStr(head.token)
            settings = Settings(ray_dashboard_url=head.dashboard_url, ray_token=token, gateway_port=free_port())
            student = load_student(home / "student")
            asyncio.run(deploy(settings, home / "student"))
            alone = [in_process(student, n) for n in threads]
            some, full, over = (
                asyncio.run(load(settings.gateway_port, "bench", STEPS, clients, 2, SECONDS))
                for clients in (32, IN_FLIGHT, 4 * IN_FLIGHT)
            )
            alone += [in_process(student, n) for n in threads]
        finally:
            ray.terminate()
            ray.wait(10)
            end(survivors([ray.mark], [ray.session]), grace=1)
    best = max(alone)
    print("What an endpoint gives      images/s    ratio   bar      p50 ms p99 ms   refused")
    print(f"{'in process, batches of 32':28}{best:9.0f}     1.00")
    row("32 clients ÷ in process", some, best, "> 0.21")
    row(f"{IN_FLIGHT} clients ÷ in process", full, best, "")
    row(f"{4 * IN_FLIGHT} clients ÷ {IN_FLIGHT} clients", over, full.rate, "≥ 0.8")


if __name__ == "__main__":
    main()
