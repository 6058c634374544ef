"""The process at the other end of a connection, for the fault that kills it."""

import os
import signal

import psutil

Address = tuple[str, int]


def signal_client(client: Address, server: Address, name: str) -> None:
    """Send the signal called `name` to the process whose socket leads from `client` to `server`; not to us.

    Both ends count: a busy neighbour may have the same local port on a connection to somewhere else.
    """
    for connection in psutil.net_connections("tcp"):
        ends = (connection.laddr, connection.raddr)
        if ends == (client, server) and connection.pid not in {None, os.getpid()}:
            os.kill(connection.pid, signal.Signals[name])
            return
