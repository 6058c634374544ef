"""The direct runner calls the functions of the flows without Prompt flow, for files of any length.

`pf run` starts processes and writes three files for each line. This runner asks from threads and appends one
line of JSON for each answer. Run the same command again after a kill: it keeps the answers on disk and asks
failed lines again. A `Pace` decides how many requests each endpoint gets at once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.asking.answer_file import appending_answers, keep_answers, open_answers
from evaluation.asking.tool_answers import ask_chat
from evaluation.in_flight import in_flight
from evaluation.pacing import Pace, pace_of, paced
from evaluation.scored_rows import Lazy, Record, record_of
from flows.chat.chat_answer import stream_answer
from flows.compare.compare_answer import timed_answer
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json, write_json
from phi3flow.core.folder_lock import writing
from phi3flow.core.lineage import sha256_of
from phi3flow.core.progress import Progress
from phi3flow.phi3_contract import (
    Endpoint,
    EndpointError,
    Message,
    Pause,
    Reply,
    Sampling,
    join_turns,
    split_turns,
)

if TYPE_CHECKING:
    from phi3flow.chats.chat import Chat

SCHEMA = "phi3flow/direct-run/1"

Ask = Callable[[Endpoint, list[Message], Sampling], dict[str, Any]]


class _Side(NamedTuple):
    """An endpoint to ask, and its pace; its answers go to `NAME.jsonl`."""

    name: str
    endpoint: Endpoint
    pace: Pace


class _Task(NamedTuple):
    side: _Side
    position: int
    chat: "Chat"


def streamed_answer(endpoint: Endpoint, messages: list[Message], sampling: Sampling) -> dict[str, Any]:
    """`timed_answer` by the function that the chat flow's node calls, whose stream Prompt flow joins."""

    def joined(endpoint: Endpoint, messages: list[Message], sampling: Sampling) -> Reply:
        return Reply("".join(stream_answer(endpoint, messages, sampling)))

    return timed_answer(endpoint, messages, sampling, ask=joined)


def run_direct(
    chats: "Sequence[Chat]",
    endpoints: Mapping[str, Endpoint],
    ask: Ask,
    folder: Path,
    *,
    data: Path,
    workers: int,
    max_tokens: int = Sampling.max_tokens,
) -> dict[str, Lazy[Record]]:
    """Ask for all answers that `folder/NAME.jsonl` lacks; return every endpoint's answers to every chat.

    `data` is the file of the chats, `workers` the most requests in flight, all endpoints together,
    `max_tokens` the limit of an answer. Raises BadInput if `folder` holds answers to other chats or of other
    endpoints, or if another process writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    at = {name: paced(endpoint, workers) for name, endpoint in endpoints.items()}
    sides = [_Side(name, endpoint, pace_of(endpoint)) for name, endpoint in at.items()]
    sampling = Sampling(max_tokens=max_tokens)
    files = {side.name: folder / f"{side.name}.jsonl" for side in sides}
    with ExitStack() as stack:
        _claim(folder, _identity(endpoints, data, sampling), stack)
        answered = {name: keep_answers(path, len(chats)) for name, path in files.items()}
        append = {name: stack.enter_context(appending_answers(path)) for name, path in files.items()}
        done = sum(sum(lines) for lines in answered.values())
        note = partial(pause_note, [side.pace for side in sides])
        progress = stack.enter_context(Progress("answers", len(chats) * len(sides), done, note))
        tasks = (
            _Task(side, i, chats[i])
            for i in range(len(chats))
            for side in sides
            if not answered[side.name][i]
        )
        for task, record in in_flight(lambda task: _answer(task, ask, sampling), tasks, workers):
            append[task.side.name](task.position, task.chat, record)
            progress.count(failed=record.answer is None)
    return {name: open_answers(path, chats) for name, path in files.items()}


def pause_note(pauses: Sequence[Pause]) -> str:
    seconds = max((pause.seconds_left() for pause in pauses), default=0.0)
    return f"paused for {seconds:.0f} s, as the endpoint asks" if seconds >= 1 else ""


def _answer(task: _Task, ask: Ask, sampling: Sampling) -> tuple[_Task, Record]:
    """Ask when the endpoint's pace allows it."""
    side, asked = task.side, partial(_ask_with_tools, task.chat) if task.chat.uses_tools else ask
    messages = [] if task.chat.uses_tools else _messages(task.chat)
    try:
        result = side.pace.ask(
            lambda: asked(side.endpoint, messages, sampling), failed=lambda found: found["text"] is None
        )
    except EndpointError as error:
        return task, record_of({}, str(error))
    return task, record_of(result)


def _messages(chat: "Chat") -> list[Message]:
    turns = split_turns(chat.prompt)
    return [*join_turns(turns.question, turns.history, turns.system)]


def _ask_with_tools(chat: "Chat", endpoint: Endpoint, _: list[Message], sampling: Sampling) -> dict[str, Any]:
    return timed_answer(endpoint, [], sampling, ask=lambda at, _, how: ask_chat(at, chat, how))


def _claim(folder: Path, identity: dict[str, Any], stack: ExitStack) -> None:
    """Lock `folder` until `stack` closes, and check that it belongs to this run."""
    stack.enter_context(writing(folder))
    path = folder / "run.json"
    if not path.exists():
        write_json(path, identity)
    found = read_json(path)
    others = [name for name in identity if found.get(name) != identity[name]]
    if others:
        raise BadInput(
            f"{folder} holds answers of another run: other {' and '.join(others)}",
            hint=f"choose another --out, or rm -r {folder}",
        )


def _identity(asked: Mapping[str, Endpoint], data: Path, sampling: Sampling) -> dict[str, Any]:
    """What the answers depend on. URLs are hashed, because a URL may carry a secret."""
    endpoints = {
        name: hashlib.sha256(json.dumps([at.url, at.contract, at.model, at.deployment]).encode()).hexdigest()
        for name, at in asked.items()
    }
    return {"schema": SCHEMA, "data": sha256_of(data), "endpoints": endpoints, "sampling": asdict(sampling)}
