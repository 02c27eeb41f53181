"""Submissions: how many a second and how long each takes, beside a bare insert."""

import asyncio
import json
from uuid import uuid4

from http1 import Met, request, saturate, sustain
from plane import Plane

BODY = json.dumps({"teacher": "digits", "method": {"kind": "progressive"}}).encode()
CLIENTS = 16
SECONDS = 6.0


def saturated(plane: Plane, key: str) -> Met:
    def ask(number: int) -> bytes:
        return request("POST", "/v1/jobs", key, BODY, f"Idempotency-Key: {uuid4().hex}\r\n")

    return asyncio.run(saturate(plane.port, ask, CLIENTS, SECONDS, 202))


def sustained(plane: Plane, key: str, rate: float) -> Met:
    def ask(number: int) -> bytes:
        return request("POST", "/v1/jobs", key, BODY, f"Idempotency-Key: {uuid4().hex}\r\n")

    return asyncio.run(sustain(plane.port, ask, rate, 4 * CLIENTS, SECONDS, 202))
