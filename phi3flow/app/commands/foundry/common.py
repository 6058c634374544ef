"""What the steps of `phi3flow foundry` share."""

import argparse
from typing import TYPE_CHECKING, Any

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from deploy.foundry.target import Target


def asked_target(args: argparse.Namespace, settings: Settings) -> "Target":
    from deploy.foundry.target import target_of

    return target_of(settings, workspace=args.workspace)


def planned(actions: list[Any], plan: bool, following: str, **data: Any) -> Outcome:
    from deploy.azure.steps.plan import as_data

    lines = [str(action) for action in actions]
    lines += [f"{name}: {url}" for name, url in data.get("urls", {}).items()]
    lines.append("a plan: nothing was written" if plan else f"next: {following}")
    return Outcome({"plan": plan, "actions": as_data(actions), **data}, "\n".join(lines))
