"""`phi3flow doctor`: what is wrong on this machine, and the command that repairs it."""

from typing import TYPE_CHECKING

from phi3flow.core.console import Outcome

if TYPE_CHECKING:
    from phi3flow.app.doctor import Check


def doctor() -> Outcome:
    """Check this machine: versions, ports, keyring, disk, memory, GPU.

    example: phi3flow doctor

    Exit code 1 if something must be repaired.
    """
    from phi3flow.app.doctor import FAIL, examine
    from phi3flow.core.settings import Settings

    checks = examine(Settings.load())
    failed = any(check.status == FAIL for check in checks)
    data = {"checks": [check._asdict() for check in checks]}
    return Outcome(data, "\n".join(map(_line, checks)), exit_code=1 if failed else 0)


def _line(check: "Check") -> str:
    fix = f"\n{'':18}fix: {check.fix}" if check.fix else ""
    return f"{check.status:4}  {check.name:10}  {check.sentence}{fix}"
