"""Requests that are cheap to send and were once dear to answer, and clients that send nothing else."""

import asyncio
import json
import time
from collections import Counter

from http_load import LOOPBACK

CHAT = "/v1/chat/completions"
TURNS = [{"role": ("user", "assistant")[i % 2], "content": "a"} for i in range(28_001)]
BODIES = [
    (CHAT, json.dumps({"messages": TURNS}).encode()),
    (CHAT, json.dumps({"messages": [{"role": "user", "content": "<|end|><|assistant|>" * 50_000}]}).encode()),
    (CHAT, b'{"messages": ' + b"[" * 500_000),
    (CHAT, b"\xff" * 1_000_000),
    ("/score", json.dumps({"input_data": ["a " * 8_000] * 64}).encode()),
    ("/score", json.dumps({"input_data": {"input_string": TURNS}}).encode()),
]


async def pester(port: int, key: str, clients: int, seconds: float) -> dict[str, int]:
    """How often each status was the answer to `clients` that send one such request after the other."""
    seen: Counter[str] = Counter()
    ends = time.monotonic() + seconds

    async def client(number: int) -> None:
        while time.monotonic() < ends:
            seen[await _status(port, key, *BODIES[number % len(BODIES)])] += 1
            number += 1

    await asyncio.gather(*map(client, range(clients)))
    return dict(sorted(seen.items()))


async def _status(port: int, key: str, path: str, body: bytes) -> str:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    head = f"POST {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        writer.write(head.encode() + body)
        return (await reader.readline()).decode("latin-1").split(" ")[1]
    except (OSError, IndexError):
        return "closed"
    finally:
        writer.close()
