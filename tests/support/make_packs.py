"""Make the packaged packs, `evaluation/packs/*.jsonl`, from the texts in `pack_texts/` and the toy's corpus.

Run it after a change of these: `python tests/support/make_packs.py`.
"""

from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import count
from pathlib import Path

from made_forgetting import forgetting
from made_rows import Made
from made_safety import safety

from phi3flow.core.jsonl import write_jsonl


def made_packs() -> dict[str, list[Made]]:
    """The rows of both packs, each with its id and two answers."""
    return {"safety": list(_numbered(safety())), "forgetting": list(_numbered(forgetting()))}


def _numbered(rows: Iterable[Made]) -> Iterator[Made]:
    """Ids count within a slice, so that a row added to one slice changes no id of another."""
    numbers: dict[str, Iterator[int]] = {}
    for made in rows:
        number = next(numbers.setdefault(made.row["slice"], count(1)))
        yield made._replace(row={"id": f"{made.row['slice'].replace(' ', '-')}-{number:03}"} | made.row)


if __name__ == "__main__":
    for name, rows in made_packs().items():
        write_jsonl(Path(str(files("evaluation") / "packs" / f"{name}.jsonl")), [made.row for made in rows])
