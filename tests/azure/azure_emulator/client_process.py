"""The process at the other end of a connection, for the fault that kills it."""

import os
import signal

import psutil


def signal_client(address: tuple[str, int], name: str) -> None:
    """Send the signal called `name` to the process whose socket has this local address; not to ourselves."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr == address and connection.pid not in {None, os.getpid()}:
            os.kill(connection.pid, signal.Signals[name])
            return
