"""What `phi3flow migrate check` found: `parity.html` for people, `parity.json` for programs, a summary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.unmovable import Unmovable
from phi3flow.app.parity import Parity
from phi3flow.core.console import table
from phi3flow.core.files import write_json, write_text

PAGE, FIGURES = "parity.html", "parity.json"
SHOWN = 100  # differing answers of a flow on the page


def figures_of(found: Sequence[Parity], unmoved: Sequence[Unmovable]) -> dict[str, Any]:
    """The counts, the differing answers by name, and what cannot be moved."""
    flows = {
        each.flow: {
            "lines": len(each.rows),
            "edge_cases": len(each.edges),
            "differing": [pair.asked.name for pair in each.differing],
            "seconds": round(each.seconds, 1),
        }
        for each in found
    }
    return {"flows": flows, "unmovable": [each._asdict() | {"file": str(each.file)} for each in unmoved]}


def summary(found: Sequence[Parity], unmoved: Sequence[Unmovable], page: Path) -> str:
    """For the terminal: counts, the names of what differs, what cannot be moved, and the page."""
    head = ("flow", "lines", "edge cases", "differing")
    rows = [
        (each.flow, str(len(each.rows)), str(len(each.edges)), str(len(each.differing))) for each in found
    ]
    named = [f"{each.flow}: {pair.asked.name}: differs" for each in found for pair in each.differing[:SHOWN]]
    lines = [table(head, rows)] if rows else []
    return "\n".join([*lines, *named, *map(str, unmoved), f"report: {page}"])


def write_page(found: Sequence[Parity], unmoved: Sequence[Unmovable], folder: Path) -> None:
    """Write both files. Texts of models and users are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("phi3flow.app", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.get_template("parity.html.jinja").render(
        found=found, unmoved=unmoved, shown=SHOWN, differing=sum(len(each.differing) for each in found)
    )
    write_text(folder / PAGE, page)
    write_json(folder / FIGURES, figures_of(found, unmoved))
