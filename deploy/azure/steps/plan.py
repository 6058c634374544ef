"""One engine for every verb: each step looks at what exists, and makes what is missing or different.

Looking writes nothing, so a plan is the same walk without the making. A step that is interrupted is looked at
again by the next run; nothing is remembered between runs but what Azure itself shows.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from deploy.azure.steps.problems import explaining
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError

Do = Literal["create", "update", "keep"]
Cost = Literal["free", "by the month", "while it runs", "by the hour"]


class Look(NamedTuple):
    """What a step found: what is to be done, and why."""

    do: Do
    why: str = ""


class Action(NamedTuple):
    """One line of a plan."""

    do: Do
    kind: str
    name: str
    cost: Cost
    why: str

    def __str__(self) -> str:
        sign = {"create": "+", "update": "~", "keep": "="}[self.do]
        told = f"  ({self.why})" if self.why else ""
        cost = "" if self.do == "keep" else f"  costs: {self.cost}"
        return f"{sign} {self.do:6}  {self.kind} {self.name}{cost}{told}"


class Step(Protocol):
    """`look` reads; `make` writes until a second `look` would say keep."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def cost(self) -> Cost: ...

    def look(self) -> Look: ...
    def make(self) -> None: ...


def carry_out(steps: Sequence[Step], *, plan: bool) -> list[Action]:
    """Walk the steps in order; with `plan`, only say what would be done. Raises Phi3flowError."""
    actions: list[Action] = []
    for step in steps:
        with explaining(f"{step.kind} {step.name}", [] if plan else made(actions)):
            look = step.look()
            if look.do != "keep" and not plan:
                say(f"{look.do} {step.kind} {step.name} ...")
                step.make()
        actions.append(Action(look.do, step.kind, step.name, step.cost, look.why))
    return actions


def made(actions: Sequence[Action]) -> list[str]:
    """What exists after `actions`, for an error's message."""
    return [f"{action.kind} {action.name}" for action in actions]


def as_data(actions: Sequence[Action]) -> list[dict[str, Any]]:
    return [action._asdict() for action in actions]


def foreign(kind: str, name: str) -> Phi3flowError:
    """An existing thing without our tag stands where ours should."""
    return Phi3flowError(
        f"{kind} {name} exists and is not phi3flow's (it has no tag phi3flow)",
        "choose another PHI3FLOW_AZURE_WORKSPACE, or remove it yourself",
    )
