"""A scoring endpoint (contract B) that waits SECONDS and gives a fixed answer, or with `echo` the question.

python bench/slow_endpoint.py SECONDS [echo]      prints its port
"""

import asyncio
import json
import re
import sys

FIXED = b'{"output": "The capital of that country is the city in the question, as far as I know."}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Handles the requests of one persistent connection."""

    def __init__(self, seconds, body_of):
        self.seconds, self.body_of, self.buffer = seconds, body_of, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)  # none in a GET
        if end and len(rest) >= int(length[1] if length else 0):
            self.buffer = b""
            body = self.body_of(rest)
            reply = HEAD % len(body) + body
            asyncio.get_running_loop().call_later(self.seconds, self.transport.write, reply)


def fixed(_):
    return FIXED


def echo(request):
    messages = json.loads(request)["input_data"]["input_string"]
    return json.dumps({"output": messages[-1]["content"]}).encode()


async def main(seconds, body_of):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(seconds, body_of), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), echo if sys.argv[2:] == ["echo"] else fixed))
