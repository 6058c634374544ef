"""Machine sizes, what they are for and what they cost by the hour: the packaged, dated table."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Profile:
    """A training cluster: its name in the workspace and its size."""

    compute: str
    size: str


def _table() -> dict[str, Any]:
    return tomllib.loads((files("deploy.azure.steps") / "sizes.toml").read_text(encoding="utf-8"))


def dated() -> str:
    return str(_table()["dated"])


def hourly(size: str) -> float | None:
    """Dollars an hour of one machine, None for a size that the table does not have."""
    prices = {name.lower(): price for name, price in _table()["hourly"].items()}
    return prices.get(size.lower())


def profile(name: str) -> Profile:
    """`gpu` or `cpu`."""
    return Profile(**_table()["profile"][name])


def serving_size(engine: str) -> str:
    """`openvino` or `vllm`."""
    return str(_table()["engine"][engine])
