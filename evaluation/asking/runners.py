"""Which runner asks the questions."""

from pathlib import Path

PROMPT_FLOW, DIRECT = "pf", "direct"
PROMPT_FLOW_LINES = (
    2_000  # about as many as `pf run` answers in a minute at 200 ms; beyond, the direct runner
)


def runner_for(data: Path) -> str:
    """Prompt flow's own for small files, the direct one for large. Others check whether the file is there."""
    if not data.is_file():
        return PROMPT_FLOW
    with data.open("rb") as stream:
        lines = sum(1 for line in stream if line.strip())
    return PROMPT_FLOW if lines <= PROMPT_FLOW_LINES else DIRECT
