"""A scoring endpoint (contract B) that waits SECONDS and gives a fixed answer.

python bench/slow_endpoint.py SECONDS      prints its port
"""

import asyncio
import re
import sys

BODY = b'{"output": "The capital of that country is the city in the question, as far as I know."}'
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Handles the requests of one persistent connection."""

    def __init__(self, seconds):
        self.seconds, self.buffer = seconds, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)  # none in a GET
        if end and len(rest) >= int(length[1] if length else 0):
            self.buffer = b""
            asyncio.get_running_loop().call_later(self.seconds, self.transport.write, REPLY)


async def main(seconds):
    server = await asyncio.get_running_loop().create_server(lambda: Connection(seconds), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
