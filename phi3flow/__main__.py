"""Where `phi3flow` and `python -m phi3flow` start: first, are the packages beside this one really ours?"""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("training", "deploy", "custom_connections", "flows", "evaluation", "ui", "agents")
BAD_INPUT = 2


def main() -> int:
    """Run the command line; returns its exit code."""
    if problem := foreign_package():
        print(problem, file=sys.stderr)
        return BAD_INPUT
    from phi3flow.app.cli import main as run

    return run()


def foreign_package() -> str:
    """The sentence about a package or folder that hides one of ours, or an empty string.

    Our packages have common names and lie beside this one. `python -m` looks in the current folder first, and
    PYTHONPATH comes before what is installed; the `phi3flow` command and `python -P` do neither.
    """
    ours = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        found = [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or []]
        if found and found[0] != ours / name:
            return (
                f"error: {found[0]} hides phi3flow's own package '{name}'\n"
                "hint: phi3flow, python -P -m phi3flow and torchrun --no-python phi3flow do not look in the "
                "current folder; a folder in PYTHONPATH must come out of it"
            )
    return ""


if __name__ == "__main__":
    sys.exit(main())
