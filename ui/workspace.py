"""What all pages and sessions of this server share: the run, its conversations and the running answers."""

import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from phi3flow.core.files import read_json
from phi3flow.core.lineage import MANIFEST
from phi3flow.core.service_stack import LOOPBACK
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES, TUNED
from phi3flow.phi3_contract import (
    CutOff,
    Endpoint,
    EndpointError,
    FlowFailed,
    Garbled,
    Overloaded,
    Rejected,
    TimedOut,
    TooLong,
    Unauthorized,
    Unreachable,
    Untrusted,
)
from ui.conversations import CUT, RUNNING, Conversation, Conversations, Model, Turn
from ui.history import Prompt, context_of, prompt_of, room_for_prompt
from ui.login import owner
from ui.rendering import label
from ui.streams import RunningAnswer, Streams

_contexts: dict[int, int] = {}  # of running endpoints, by port
DATABASE, VOTES, REPORT = "chat.sqlite", "preferences.jsonl", "report.json"
VERDICTS = {"promote": "promote", "hold": "hold", "not_enough_data": "not enough data"}
SHOWN_HASH = 12  # digits of a SHA-256
ANSWER_SECONDS = 120.0  # longer than the flow's own deadline, so that the flow reports what went wrong
SENTENCES: dict[type[EndpointError], str] = {
    Unauthorized: (
        "The model's endpoint refused the key. Store the current one with `phi3flow connect`, then start "
        "`phi3flow up` again."
    ),
    Unreachable: "The model's endpoint does not answer. Start it again: `phi3flow up`.",
    Untrusted: (
        "The TLS certificate of the model's endpoint is not trusted here. Set REQUESTS_CA_BUNDLE, then start "
        "`phi3flow up` again."
    ),
    TimedOut: "The model took too long. Ask again, or allow fewer tokens.",
    Overloaded: "The model's endpoint stayed overloaded. Ask again later.",
    Garbled: (
        "The model's endpoint does not speak the contract of its connection. Store the connection again: "
        "`phi3flow connect`."
    ),
    CutOff: "The connection broke before the answer was complete.",
}


class Workspace(NamedTuple):
    """The run and one person's conversations about it."""

    run: Path
    conversations: Conversations
    streams: Streams

    def prompt(self, conversation: Conversation, question: str, earlier: list[Turn]) -> Prompt:
        room = room_for_prompt(_served_context(self.run / TUNED.name), conversation.max_tokens)
        return prompt_of(question, earlier, conversation.system, room)

    def ask(
        self,
        conversation: Conversation,
        question: str,
        *,
        model: str = TUNED.name,
        instead_of: str | None = None,
        already: str = "",
    ) -> None:
        """Start an answer; it replaces the turn `instead_of` and every turn after that one.

        Does nothing for an empty question. In a chat this stops the answer that is still running. `already`
        is the text to keep until the new answer is longer.
        """
        if not question:
            return
        turns: list[Turn] = []
        if conversation.kind == "chat":
            for turn in self.conversations.turns(conversation.id):
                self.streams.stop(turn.id)
            turns = self.conversations.turns(conversation.id)  # with what the stopped answer had so far
        names = [turn.id for turn in turns]
        earlier = turns[: names.index(instead_of)] if instead_of in names else turns
        messages = self.prompt(conversation, question, earlier).messages
        asked = self._model(model)
        added = self.conversations.add(conversation.id, question, asked, instead_of=instead_of)
        endpoint = Endpoint(_url_of(model), contract="promptflow", timeout=ANSWER_SECONDS)
        answer = RunningAnswer(
            added.id,
            lambda: endpoint.stream(messages, conversation.sampling),
            lambda error: explained(error, model, self.run),
            self.conversations,
            already,
        )
        self.streams.start(answer)

    def state_of(self, turn: Turn) -> tuple[Turn, RunningAnswer | None]:
        """The turn as it is now, and its answer while that is running."""
        answer = self.streams.get(turn.id) if turn.status == RUNNING else None
        if answer or turn.status != RUNNING:
            return turn, answer
        ended = self.conversations.turn(turn.id) or turn  # it may have ended since `turn` was read
        if ended.status == RUNNING:
            ended = ended._replace(status=CUT, error="The page lost track of this answer.")
            self.conversations.save(turn.id, status=ended.status, error=ended.error)
        return ended, None

    def latest_report(self) -> tuple[dict[str, Any], Path]:
        """The latest `report.json` in the run or a folder of it, and its path; empty if there is none."""
        found = [*self.run.glob(REPORT), *self.run.glob(f"*/{REPORT}")]
        path = max(found, key=lambda path: path.stat().st_mtime, default=self.run / REPORT)
        return _json(path), path

    def verdict_on(self, model_hash: str) -> str:
        """The latest report's verdict if it is about the model with this hash, else why there is none."""
        report, path = self.latest_report()
        if not report or not model_hash:
            return "not compared yet, see the report page"
        compared = {artifact["sha256"] for artifact in _json(path.parent / MANIFEST).get("inputs", [])}
        if model_hash not in compared:
            return "the latest report is about another model"
        return verdict_of(report)

    def _model(self, name: str) -> Model:
        """Model `base` or `tuned` of the run; hashes are empty without a manifest."""
        manifest = _json(self.run / name / MANIFEST)
        hashes = {artifact["kind"]: artifact["sha256"] for artifact in reversed(manifest.get("inputs", []))}
        own = [artifact["sha256"] for artifact in manifest.get("outputs", [])]
        return Model(name, own[0] if own else "", hashes.get("data", ""))


def this_workspace() -> Workspace:
    """The workspace of the person who opened the page; stops the script if a login is needed."""
    person = owner()
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    database, streams = _of_server(run.resolve())
    return Workspace(run, Conversations(database, person), streams)


def verdict_of(report: Mapping[str, Any]) -> str:
    """A report's verdict in words."""
    return VERDICTS.get(str(report.get("verdict")), "unknown")


def explained(error: EndpointError, model: str, run: Path) -> str:
    """What went wrong and what to do: a fixed text, or the endpoint's bounded reason for a refusal.

    The contract module has taken keys and URLs out of that reason; here it loses its Markdown.
    """
    if isinstance(error, Unreachable):
        return f"No chat flow answers on port {urlsplit(_url_of(model)).port}: start it with `phi3flow up`."
    cause = error.cause if isinstance(error, FlowFailed) else error
    if isinstance(cause, TooLong):
        return "This is longer than the model's context. Ask with fewer words, or start a new chat."
    if isinstance(cause, Rejected) and cause is not error:
        return f"The chat flow could not answer: {label(str(cause))}"
    if isinstance(cause, Rejected):
        return f"The chat flow could not answer: its logs are in `{run / 'up'}`."
    return SENTENCES[type(cause)]


def _served_context(model: Path) -> int:
    """The context that the endpoint tells, or as long as it does not, that of the model's folder."""
    return _told_context(Settings.load().endpoint_port) or context_of(model)


def _told_context(port: int) -> int | None:
    """Asked until it is told: a running endpoint never changes it."""
    if port not in _contexts and (
        told := Endpoint(f"http://{LOOPBACK}:{port}/", contract="openai").context()
    ):
        _contexts[port] = told
    return _contexts.get(port)


def _url_of(model: str) -> str:
    """Where the chat flow of `model` is served."""
    settings = Settings.load()
    port = next(getattr(settings, side.flow_port) for side in SIDES if side.name == model)
    return f"http://{LOOPBACK}:{port}/score"


def _json(path: Path) -> dict[str, Any]:
    """A JSON object of our own; empty if missing or broken: the page shows what there is."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache
def _of_server(run: Path) -> tuple[Path, Streams]:
    """The database, prepared once, and the running answers: the same for all sessions of this server."""
    Conversations(run / DATABASE).prepare()
    return run / DATABASE, Streams()
