"""`phi3flow feedback`: what people said about a run's answers, as rows to train on."""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from typer import Argument, Option

from phi3flow.app.run_folder import preference_command, test_file
from phi3flow.core.console import Outcome, complain, say, table
from phi3flow.core.errors import BadInput
from phi3flow.core.files import for_owner_alone
from phi3flow.core.folder_lock import writing
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import result_file
from phi3flow.core.sides import TUNED

if TYPE_CHECKING:
    from phi3flow.app.feedback import Export, Row, RowKind


@for_owner_alone()
def feedback(
    run: Annotated[
        Path, Argument(metavar="RUN", help="Run folder that `phi3flow up` served: its chats and votes.")
    ],
    *,
    out: Annotated[
        Path | None, Option(metavar="FILE", help="File to write (default: only show what there is).")
    ] = None,
    kind: Annotated[
        Literal["preferences", "thumbs", "chats"],
        Option(
            help="preferences: votes, corrected answers, and thumbs on answers to one question, for train "
            "--method dpo; thumbs: each answer with a thumb, for train --method kto; "
            "chats: answers with a thumb up and corrected ones, for prepare."
        ),
    ] = "preferences",
    replace_personal: Annotated[
        bool,
        Option(
            "--replace-personal",
            help="Replace what a pattern finds: e-mail addresses, phone and card numbers, keys, some names.",
        ),
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace a file that is there already.")] = False,
) -> Outcome:
    """Turn the votes, thumbs and corrections of the chat page into rows to train on.

    example: phi3flow feedback runs/mine --out preferences.jsonl

    example: phi3flow feedback runs/mine --kind chats --replace-personal --out more-chats.jsonl

    Without --out nothing is written. No question of the run's test set is exported, and nothing leaves this
    machine.
    """
    path = result_file(out, force=force) if out else None
    with writing(path) if path else nullcontext():
        found = found_in(run, kind)
        if replace_personal:
            found = found._replace(rows=found.cleaned)
        shown = "\n".join(what_was_found(run, found, replaced=replace_personal))
        data = found.told() | {"replaced": replace_personal, "path": str(path) if path else None}
        if not path:
            return Outcome(data, f"{shown}\nnothing was written: --out FILE writes the rows")
        say(shown)
        if not found.rows:
            raise BadInput(f"{run}: no {kind} to export; nothing was written", hint=more_feedback(run))
        write_jsonl(path, found.rows)
    return Outcome(data, "\n".join([f"{path}: {len(found.rows)} rows", *_next(run, kind, path)]))


class Found(NamedTuple):
    """What is exported, its rows with and without personal data, and what there was."""

    export: "Export"
    rows: "Sequence[Row]"
    cleaned: "Sequence[Row]"
    personal: Counter[str]
    said: dict[str, int]
    test_rows: int

    def told(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "rows": len(self.rows),
            "from": dict(self.export.made),
            "left_out": dict(self.export.left_out),
            "personal_data": dict(self.personal),
            "said": self.said,
            "test_rows": self.test_rows,
        }


def found_in(run: Path, kind: "RowKind") -> Found:
    """What people said about a run's answers. Raises BadInput for a run without chats and votes."""
    from phi3flow.app.feedback import exported, without_personal
    from phi3flow.chats.rows import load_chats
    from ui.store.feedback import kept_turns, read_votes
    from ui.store.records import DATABASE, VOTES

    if not (run / DATABASE).exists() and not (run / VOTES).exists():
        raise BadInput(f"{run}: no chats and no votes ({DATABASE}, {VOTES})", hint=more_feedback(run))
    turns, votes, held_out = kept_turns(run / DATABASE), read_votes(run / VOTES), test_file(run)
    test = load_chats(held_out) if held_out.is_file() else []
    if not test:
        complain(f"{held_out}: no held-out test set, so no test question can be left out")
    export = exported(kind, turns, votes, test)
    cleaned, personal = without_personal(export.rows)
    said = {
        "chats": len({turn.conversation for turn in turns}),
        "people": len({turn.owner for turn in turns}),
        "answers": len(turns),
        "thumbs up": sum(turn.thumb == 1 for turn in turns),
        "thumbs down": sum(turn.thumb == 0 for turn in turns),
        "comments": sum(bool(turn.comment.strip()) for turn in turns),
        "corrected answers": sum(bool(turn.corrected) for turn in turns),
        "votes": len(votes),
    }
    return Found(export, export.rows, cleaned, personal, said, len(test))


def what_was_found(run: Path, found: Found, *, replaced: bool) -> Iterator[str]:
    """What is exported, before it is."""
    yield table(("collected in " + str(run), "number"), [(name, str(n)) for name, n in found.said.items()])
    yield ""
    rows = [(f"from {source}", str(count)) for source, count in found.export.made.items()]
    rows += [(f"left out: {why}", str(count)) for why, count in found.export.left_out.items()]
    yield table(("rows", "number"), [*rows, ("exported", str(len(found.rows)))])
    if found.personal:
        kinds = ", ".join(f"{name} ({count})" for name, count in found.personal.items())
        verb = "replaced" if replaced else "not replaced (--replace-personal does it)"
        yield f"personal data that a pattern finds, {verb}: {kinds}"
    yield "Patterns miss most names and addresses: read the rows before you give them away."
    yield "Nothing has left this machine."


def more_feedback(run: Path) -> str:
    """To paste, where there is nothing to learn from."""
    return f"chat, vote and correct answers: phi3flow up {shlex.quote(str(run))} --arena"


def _next(run: Path, kind: str, path: Path) -> list[str]:
    """To paste: the training on preferences; or the chats joined to the run's own, its test set as it is."""
    if kind != "chats" and (run / TUNED.name / "config.json").is_file():
        return [f"next: {preference_command(path, run, 'kto' if kind == 'thumbs' else 'dpo')}"]
    if kind != "chats" or not test_file(run).is_file():
        return []
    data = test_file(run).parent
    words = ["phi3flow", "prepare", data / "train.jsonl", data / "val.jsonl", path]
    words += ["--test", test_file(run), "--out", run.with_name(f"{run.name}-2") / "data"]
    return [f"next: {shlex.join(map(str, words))}"]
