"""What all pages and sessions of this server share: the run, its conversations and the running answers."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from phi3flow.core.ports import LOOPBACK
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES, TUNED
from phi3flow.phi3_contract import (
    CutOff,
    Endpoint,
    EndpointError,
    FlowFailed,
    Garbled,
    Message,
    Overloaded,
    Rejected,
    Sampling,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from ui.conversations import CUT, RUNNING, Conversation, Conversations, Turn
from ui.history import Prompt, context_of, prompt_of, room_for_prompt
from ui.login import HOW_TO, LOOPBACK_ADDRESSES, login_problem
from ui.run_record import model_of
from ui.streams import RunningAnswer, Streams

DATABASE, VOTES = "chat.sqlite", "preferences.jsonl"
ANSWER_SECONDS = 120.0  # longer than the flow's own deadline, so that the flow reports what went wrong
SENTENCES: dict[type[EndpointError], str] = {
    Unauthorized: (
        "The model's endpoint refused the key. Store the current one with `phi3flow connect`, then start "
        "`phi3flow up` again."
    ),
    Unreachable: "The model's endpoint does not answer. Start it again: `phi3flow up`.",
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
        context = context_of(self.run / TUNED.name)
        room = room_for_prompt(context, conversation.max_tokens)
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

        In a chat this stops the answer that is still running. `already` is the text to keep until the new
        answer is longer.
        """
        turns: list[Turn] = []
        if conversation.kind == "chat":
            for turn in self.conversations.turns(conversation.id):
                self.streams.stop(turn.id)
            turns = self.conversations.turns(conversation.id)  # with what the stopped answer had so far
        names = [turn.id for turn in turns]
        earlier = turns[: names.index(instead_of)] if instead_of in names else turns
        messages = self.prompt(conversation, question, earlier).messages
        added = self.conversations.add(
            conversation.id, question, model_of(self.run, model), instead_of=instead_of
        )
        answer = RunningAnswer(
            added.id,
            _stream_of(model, messages, conversation.sampling),
            lambda error: explained(error, model, self.run),
            self.conversations,
            already,
        )
        self.streams.start(answer, added.id)

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


def this_workspace() -> Workspace:
    """The workspace of the person who opened the page; stops the script if a login is needed."""
    owner = _owner()
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    return Workspace(run, Conversations(_database(run.resolve()), owner), _streams())


def explained(error: EndpointError, model: str, run: Path) -> str:
    """What went wrong and what to do. Fixed texts only, so no key, URL or foreign text gets in."""
    if isinstance(error, Unreachable):
        return f"No chat flow answers on port {_port_of(model)}: start it with `phi3flow up`."
    cause = error.cause if isinstance(error, FlowFailed) else error
    if isinstance(cause, Rejected):
        return f"The chat flow could not answer: its logs are in `{run / 'up'}`."
    return SENTENCES[type(cause)]


def _stream_of(model: str, messages: Sequence[Message], sampling: Sampling) -> Callable[[], Iterator[str]]:
    """A function that asks the served flow of `model` once per call."""
    url = f"http://{LOOPBACK}:{_port_of(model)}/score"
    endpoint = Endpoint(url, contract="promptflow", timeout=ANSWER_SECONDS)
    return lambda: endpoint.stream(messages, sampling)


def _port_of(model: str) -> int:
    settings = Settings.load()
    return next(getattr(settings, side.flow_port) for side in SIDES if side.name == model)


@lru_cache
def _database(run: Path) -> Path:
    """Prepared once per server, however many sessions it serves."""
    Conversations(run / DATABASE).prepare()
    return run / DATABASE


@lru_cache
def _streams() -> Streams:
    return Streams()


def _owner() -> str:
    """Empty on loopback, where everybody is the same person; elsewhere the person who logged in."""
    if st.get_option("server.address") in LOOPBACK_ADDRESSES:
        return ""
    if problem := login_problem():
        st.error(f"Other machines can reach this page, but nobody can log in: {problem}.")
        st.code(HOW_TO, language=None)
        st.stop()
    if not st.user.is_logged_in:
        st.title("phi3flow")
        st.button("Log in", on_click=st.login, type="primary")
        st.stop()
    return str(st.user.get("sub") or st.user.get("email"))
