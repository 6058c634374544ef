"""Which model of a run the chat app serves: its `tuned/`, or that of the improvement that was promoted last.

An improvement is a run folder of its own in the run: `improve/1`, `improve/2` and so on.
"""

from pathlib import Path
from typing import NamedTuple

from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json

IMPROVEMENTS, PROMOTIONS = "improve", "promoted.json"


class Promotion(NamedTuple):
    """`because` are the words of the person who promoted it although the verdict was another."""

    improvement: int
    promoted: str
    verdict: str
    because: str = ""


def improvement_folder(run: Path, number: int) -> Path:
    return run / IMPROVEMENTS / str(number)


def promotions(run: Path) -> list[Promotion]:
    """The promotions that stand, the first one first. Raises BadInput for a broken file."""
    path = run / PROMOTIONS
    try:
        found = [Promotion(**row) for row in read_json(path)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: not a list of promotions: {error}", hint=_own_model(path)) from None
    if not all(isinstance(each.improvement, int) and each.improvement > 0 for each in found):
        raise BadInput(f"{path}: improvement: must be a number from 1 on", hint=_own_model(path))
    return found


def keep_promotions(run: Path, standing: list[Promotion]) -> None:
    write_json(run / PROMOTIONS, [each._asdict() for each in standing])


def served_run(run: Path) -> Path:
    """The run folder whose `tuned/` is served: `run` itself, or an improvement of it."""
    standing = promotions(run)
    return improvement_folder(run, standing[-1].improvement) if standing else run


def _own_model(path: Path) -> str:
    return f"rm {path}: the run's own tuned/ is served again"
