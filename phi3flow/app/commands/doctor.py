"""`phi3flow doctor`: what is wrong on this machine, and the command that repairs it."""

import argparse
from typing import TYPE_CHECKING

from phi3flow.core.console import Outcome
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from phi3flow.app.doctor import Check

SENTENCE = (
    "Check this machine: versions, ports, keyring, room, devices; exit 1 if something must be repaired."
)
EXAMPLE = "phi3flow doctor"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    """No flags: a check that has to be configured is not run."""


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from phi3flow.app.doctor import FAIL, examine

    checks = examine(settings)
    failed = any(check.status == FAIL for check in checks)
    return Outcome(
        {"checks": [check._asdict() for check in checks]},
        "\n".join(map(_line, checks)),
        exit_code=1 if failed else 0,
    )


def _line(check: "Check") -> str:
    fix = f"\n{'':18}fix: {check.fix}" if check.fix else ""
    return f"{check.status:4}  {check.name:10}  {check.sentence}{fix}"
