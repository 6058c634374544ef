"""The direct runner: the functions of the flows, without Prompt flow around them, for files of any length.

`pf run` starts processes and writes three files a line; here a thread per request in flight asks, and a line
of JSON is appended per answer. The same command continues a run that was killed: answers on disk are kept,
failed lines are asked again. When an endpoint says "come back in a minute", nobody asks it for a minute.
"""

import fcntl
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.asking.answer_file import Record, open_answers
from evaluation.asking.answer_log import appending, keep_answers
from evaluation.asking.in_flight import in_flight
from evaluation.asking.lazy import Lazy
from phi3flow import phi3_contract
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from phi3flow.core.progress import Progress
from phi3flow.phi3_contract import Endpoint, EndpointError, Message, Pause, Sampling, join_turns, split_turns

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

SCHEMA = "phi3flow/direct-run/1"
PATIENCE_SECONDS = 900.0  # an endpoint that answers nobody for so long, and only asks to wait, has failed

IDENTIFYING = ("url", "contract", "model", "deployment")

Ask = Callable[[Endpoint, list[Message], Sampling], dict[str, Any]]


@dataclass
class Side:
    """One model that is asked, under the name its answers are filed."""

    name: str
    endpoint: Endpoint
    last_answer: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.pause = Pause()
        self.endpoint = replace(self.endpoint, pause=self.pause)


class _Task(NamedTuple):
    side: Side
    position: int
    chat: "Chat"


def compare_function() -> Ask:
    """What the compare flow's nodes call."""
    _as_flows_name_it()
    from flows.compare.compare_answer import timed_answer

    return timed_answer


def chat_function() -> Ask:
    """What the chat flow's node calls, and the joining that Prompt flow does."""
    _as_flows_name_it()
    from flows.chat.chat_answer import stream_answer

    def ask(endpoint: Endpoint, messages: list[Message], sampling: Sampling) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            text = "".join(stream_answer(endpoint, messages, sampling))
        except EndpointError as error:
            return {"text": None, "seconds": None, "tokens": None, "error": str(error)}
        seconds = round(time.perf_counter() - started, 4)
        return {"text": text, "seconds": seconds, "tokens": None, "error": None}

    return ask


def _as_flows_name_it() -> None:
    """A flow's modules import their neighbours by bare name; the contract module is one of them."""
    sys.modules["phi3_contract"] = phi3_contract


def run_direct(
    chats: "Sequence[Chat]",
    sides: Sequence[Side],
    ask: Ask,
    folder: Path,
    *,
    sampling: Sampling,
    data_sha256: str,
    workers: int,
) -> dict[str, Lazy[Record]]:
    """Each side's answers to every chat, from `folder/NAME.jsonl`, after asking for those not there.

    `workers` requests are in flight at a time, all sides together. Raises BadInput where `folder` holds
    answers to other chats or of other endpoints, or while another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {side.name: folder / f"{side.name}.jsonl" for side in sides}
    with ExitStack() as stack:
        _claim(folder, _identity(sides, sampling, data_sha256), stack)
        answered = {name: keep_answers(path, len(chats)) for name, path in files.items()}
        logs = {name: stack.enter_context(appending(path)) for name, path in files.items()}
        done = sum(sum(lines) for lines in answered.values())
        note = partial(pause_note, [side.pause for side in sides])
        progress = stack.enter_context(Progress("answers", len(chats) * len(sides), done, note))
        tasks = (
            _Task(side, i, chats[i])
            for i in range(len(chats))
            for side in sides
            if not answered[side.name][i]
        )
        for task, record in in_flight(lambda task: _answer(task, ask, sampling), tasks, workers):
            logs[task.side.name].append(task.position, record)
            progress.count(failed=record.answer is None)
    return {name: open_answers(path, chats) for name, path in files.items()}


def pause_note(pauses: Sequence[Pause]) -> str:
    seconds = max((pause.seconds_left() for pause in pauses), default=0.0)
    return f"paused for {seconds:.0f} s, as the endpoint asks" if seconds >= 1 else ""


def _answer(task: _Task, ask: Ask, sampling: Sampling) -> tuple[_Task, Record]:
    """Ask when the endpoint's pause is over, and again after one that outlasts the question's deadline."""
    side, turns = task.side, split_turns(task.chat.prompt)
    messages: list[Message] = [*join_turns(turns.question, turns.history, turns.system)]
    while True:
        while seconds := side.pause.seconds_left():
            time.sleep(seconds)
        result = ask(side.endpoint, messages, sampling)
        if result["text"] is not None:
            side.last_answer = time.monotonic()
        elif side.pause.seconds_left() and time.monotonic() - side.last_answer < PATIENCE_SECONDS:
            continue
        return task, _record(result)


def _record(result: dict[str, Any]) -> Record:
    """An answer that cannot be written to a file, only JSON's escapes can say it, has failed."""
    from phi3flow.core.jsonl import RowError, any_text

    if result["text"] is None:
        return Record(None, None, result["error"])
    try:
        answer = any_text("the answer", result["text"])
        return Record(answer, result["seconds"], None, result["tokens"])
    except RowError as error:
        return Record(None, None, f"{error.field} {error.what}")


def _claim(folder: Path, identity: dict[str, Any], stack: ExitStack) -> None:
    """Make `folder` this run's own until `stack` ends."""
    lock = stack.enter_context((folder / "lock").open("ab"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadInput(
            f"{folder}: another run is writing there", hint="wait for it, or choose another --out"
        ) from None
    path = folder / "run.json"
    if not path.exists():
        write_json(path, identity)
    found = read_json(path)
    others = [name for name in identity if found.get(name) != identity[name]]
    if others:
        raise BadInput(
            f"{folder} holds answers of another run: other {' and '.join(others)}",
            hint=f"choose another --out, or remove {folder}",
        )


def _identity(sides: Sequence[Side], sampling: Sampling, data_sha256: str) -> dict[str, Any]:
    """What the answers depend on, by content: a URL may carry a secret, so it is hashed."""
    endpoints = {
        side.name: hashlib.sha256(
            json.dumps([getattr(side.endpoint, name) for name in IDENTIFYING]).encode()
        ).hexdigest()
        for side in sides
    }
    return {"schema": SCHEMA, "data": data_sha256, "endpoints": endpoints, "sampling": asdict(sampling)}
