"""The two sides of every comparison, and what each is called everywhere."""

from typing import NamedTuple


class Side(NamedTuple):
    """`name` is the model's folder in a run; the ports are fields of Settings."""

    name: str
    connection: str
    endpoint_port: str
    flow_port: str


BASE = Side("base", "phi3-base", "base_port", "base_flow_port")
TUNED = Side("tuned", "phi3-tuned", "endpoint_port", "flow_port")
SIDES = (BASE, TUNED)
