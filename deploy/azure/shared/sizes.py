"""Machine sizes: what each is for, its price by the hour (a packaged, dated table), and its reserve."""

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from phi3flow.core.errors import BadInput, nearest

SIZE = re.compile(r"(?:Standard|Basic)_(?P<machine>[a-z]+\d+[\w-]*)", re.IGNORECASE)
LONGEST_MACHINE = 20  # of a cluster's name, which has at most 24 characters


@dataclass(frozen=True)
class Profile:
    """A training cluster: its name in the workspace and its size."""

    compute: str
    size: str

    @property
    def gpu(self) -> bool:
        """Azure's sizes with GPUs begin with N."""
        return self.size.lower().startswith("standard_n")


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((files("deploy.azure.shared") / "sizes.toml").read_text(encoding="utf-8"))


def dated() -> str:
    """The day of the price list."""
    return str(_table()["dated"])


def hourly(size: str, machines: int = 1) -> float | None:
    """Dollars an hour; None where the table does not list the size."""
    prices = {name.lower(): price for name, price in _table()["hourly"].items()}
    price = prices.get(size.lower())
    return None if price is None else price * machines


def profile_for(name: str, size: str | None = None, nodes: int = 1, compute: str = "") -> Profile:
    """The cluster of profile `gpu` or `cpu`, one like it of another `size`, or the existing one `compute`.

    Raises BadInput for an unknown profile, what is no machine size, and fewer than one node.
    """
    known = _table()["profile"]
    if name not in known:
        raise BadInput(f"--profile: unknown '{name}'", nearest(name, known))
    if nodes < 1:
        raise BadInput("--nodes: must be at least 1", "--nodes 1")
    if compute or not size:
        return Profile(compute or known[name]["compute"], size or known[name]["size"])
    machine = _machine_of(size).partition("_")[0].lower()
    return Profile(f"{name}-{machine[:LONGEST_MACHINE]}", size)


def serving_size(engine: str, size: str | None = None) -> str:
    """The size that `openvino` or `vllm` is deployed on, unless another is given. Raises BadInput."""
    if size:
        _machine_of(size)
    return size or str(_table()["engine"][engine])


def _machine_of(size: str) -> str:
    found = SIZE.fullmatch(size)
    if found is None:
        raise BadInput(
            f"--size: '{size}' is no machine size; sizes look like Standard_NC24ads_A100_v4",
            f"{nearest(size, _table()['hourly'])}; for all: az vm list-skus --location REGION -o table",
        )
    return found["machine"]


def reserved(family: str, machines: int) -> int:
    """Machines that a deployment needs quota for: Azure reserves a fifth more, but not of large GPU sizes."""
    return machines if letters(family) in _table()["without_reserve"] else math.ceil(machines * 1.2)


def letters(name: str) -> str:
    """Azure writes one family as `standardNCASv3_T4Family` and as `Standard NCASv3_T4 Family`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
