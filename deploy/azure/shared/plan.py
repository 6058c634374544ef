"""One engine for every command: each step looks at what exists, and makes what is missing or different.

Looking writes nothing, so `--plan` is the same walk without the making. After an interruption the next run
looks again; nothing is remembered between runs but what Azure itself shows. Removals are planned and carried
out in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from deploy.azure.shared.names import OURS
from deploy.azure.shared.problems import explaining
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError

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


@dataclass(frozen=True)
class Removal:
    """Something to take away, unless there is a reason to keep it. `remove` may return the SDK's poller."""

    kind: str
    name: str
    keep_because: str
    remove: Callable[[], Any]
    do: Literal["delete", "archive"] = "delete"

    @property
    def action(self) -> Action:
        return Action("keep" if self.keep_because else self.do, self.kind, self.name, why=self.keep_because)


def take_away(cloud: "Cloud", removals: Sequence[Removal], *, plan: bool) -> list[Action]:
    """Remove in order; with `plan`, only say what. Raises Phi3flowError, which says what is left."""
    from azure.core.exceptions import ResourceNotFoundError

    actions = [removal.action for removal in removals]
    for number, (removal, action) in enumerate(zip(removals, actions, strict=True)):
        if plan or action.do == "keep":
            continue
        say(f"{action.do} {action.kind} {action.name} ...")
        with explaining(f"{action.kind} {action.name}", made(actions[number:])):
            try:
                poller = removal.remove()
                if poller is not None:
                    cloud.finish(poller, f"deleting {action.name}")
            except ResourceNotFoundError:  # gone with something else, or by an interrupted run
                pass
    return actions


def not_ours(tags: Any) -> str:
    """The reason to keep what does not carry our tag; empty for what does."""
    return "" if OURS in (tags or {}) else NOT_OURS


def as_data(actions: Sequence[Action]) -> list[dict[str, Any]]:
    """For `--json`."""
    return [{name: value for name, value in one._asdict().items() if value is not None} for one in actions]


def foreign(kind: str, name: str) -> Phi3flowError:
    """The error for a thing without our tag that stands where ours should."""
    return Phi3flowError(
        f"{kind} {name} exists and is not phi3flow's (it has no tag phi3flow)",
        "choose another PHI3FLOW_AZURE_WORKSPACE, or remove it yourself",
    )
