"""One engine for every command: each step looks at what exists, and makes what is missing or different.

Looking writes nothing, so `--plan` is the same walk without the making. After an interruption the next run
looks again; nothing is remembered between runs but what Azure itself shows. A removal is a step, too.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from deploy.azure.shared.names import is_ours
from deploy.azure.shared.problems import explaining
from phi3flow.core.console import say

if TYPE_CHECKING:
    from deploy.azure.shared.session import Cloud

Do = Literal["create", "update", "keep", "delete", "archive"]
Cost = Literal["free", "by the month", "while it runs", "by the hour"]
SIGNS: dict[Do, str] = {"create": "+", "update": "~", "keep": "=", "delete": "-", "archive": "-"}
NOT_OURS = "not phi3flow's"


class Look(NamedTuple):
    """What a step found: what is to be done, and why."""

    do: Do
    why: str = ""


class Action(NamedTuple):
    """One line of a plan; a removal has no `cost`."""

    do: Do
    kind: str
    name: str
    cost: Cost | None = None
    why: str = ""

    def __str__(self) -> str:
        cost = f"  costs: {self.cost}" if self.cost and self.do != "keep" else ""
        why = f"  ({self.why})" if self.why else ""
        return f"{SIGNS[self.do]} {self.do:7}  {self.kind} {self.name}{cost}{why}"


class Step(Protocol):
    """`look` reads; `make` writes until a second `look` would say keep."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def cost(self) -> Cost | None: ...

    def look(self) -> Look: ...
    def make(self) -> None: ...


def carry_out(steps: Sequence[Step], *, plan: bool) -> list[Action]:
    """Walk the steps in order; with `plan`, only say what would be done. Raises Phi3flowError."""
    actions: list[Action] = []
    for number, step in enumerate(steps):
        with explaining(f"{step.kind} {step.name}", [] if plan else [*made(actions), *_left(steps[number:])]):
            look = step.look()
            if look.do != "keep" and not plan:
                say(f"{look.do} {step.kind} {step.name} ...")
                step.make()
        actions.append(Action(look.do, step.kind, step.name, step.cost, look.why))
    return actions


def made(actions: Sequence[Action]) -> list[str]:
    """What exists after `actions`, for an error's message."""
    return [f"{action.kind} {action.name}" for action in actions if action.do not in ("delete", "archive")]


@dataclass(frozen=True)
class Removal:
    """A step that takes something away, unless there is a reason to keep it. `remove` may return a poller."""

    cloud: "Cloud"
    kind: str
    name: str
    keep_because: str
    remove: Callable[[], Any]
    do: Literal["delete", "archive"] = "delete"
    cost: None = None

    def look(self) -> Look:
        return Look("keep" if self.keep_because else self.do, self.keep_because)

    def make(self) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        with suppress(ResourceNotFoundError):  # gone with something else, or by an interrupted run
            poller = self.remove()
            if poller is not None:
                self.cloud.finish(poller, f"deleting {self.name}")


def _left(steps: Sequence[Step]) -> list[str]:
    """What is not removed yet."""
    return [f"{step.kind} {step.name}" for step in steps if isinstance(step, Removal)]


def not_ours(tags: Mapping[str, str] | None) -> str:
    """The reason to keep what does not carry our tag; empty for what does."""
    return "" if is_ours(tags) else NOT_OURS


def as_data(actions: Sequence[Action]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [{name: value for name, value in one._asdict().items() if value is not None} for one in actions]
