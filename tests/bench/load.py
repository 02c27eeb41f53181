"""A cheap load generator: closed-loop clients with a connection each, who wait as long as a 429 tells them."""

import asyncio
import json
import time
from dataclasses import dataclass, field


@dataclass
class Load:
    """What a number of clients met within `seconds`."""

    seconds: float = 0.0
    images: int = 0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    others: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    def quantile(self, q: float) -> float:
        """Of the latencies of accepted requests, in ms."""
        return 1000 * sorted(self.latencies)[min(len(self.latencies) - 1, int(q * len(self.latencies)))]


async def load(port: int, model: str, steps: int, clients: int, warm_up: float, seconds: float) -> Load:
    """Let `clients` ask for one image at a time; what happens in the first `warm_up` seconds is not counted."""
    met = Load(seconds=seconds)
    start = time.monotonic() + warm_up
    tasks = [asyncio.create_task(_client(port, model, steps, i, start, start + seconds, met)) for i in range(clients)]
    await asyncio.gather(*tasks)
    return met


async def _client(port: int, model: str, steps: int, number: int, start: float, stop: float, met: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while (asked := time.monotonic()) < stop:
        count += 1
        body = json.dumps(
            {"model": model, "prompt": str(number % 10), "seed": 1000 * number + count, "num_inference_steps": steps}
        )
        writer.write(
            b"POST /v1/images/generations HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        content = await reader.readexactly(int(headers["content-length"]))
        status, now = int(head.split(" ", 2)[1]), time.monotonic()
        if start <= now < stop:
            if status == 200:
                met.images += content.count(b'"b64_json"')
                met.latencies.append(now - asked)
            elif status == 429:
                met.refusals.append(now - asked)
            else:
                met.others[status] = met.others.get(status, 0) + 1
        if status == 429:
            await asyncio.sleep(min(int(headers["retry-after"]), max(0, stop - now)))
    writer.close()
