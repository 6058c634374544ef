"""What all pages and sessions of this server share: the run, its conversations, the answers on their way."""

import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from ui.conversations import RUNNING, Conversation, Conversations, Turn
from ui.history import Prompt, context_of, prompt_of, room_for_prompt
from ui.login import HOW_TO, LOOPBACK, login_problem
from ui.run_record import model_of
from ui.served_flow import explained, stream_of
from ui.streams import Answering, Streams

DATABASE, VOTES = "chat.sqlite", "preferences.jsonl"


class Workspace(NamedTuple):
    """The run and one person's conversations about it."""

    run: Path
    conversations: Conversations
    streams: Streams

    def prompt(self, conversation: Conversation, question: str, earlier: list[Turn]) -> Prompt:
        context = context_of(self.run / "tuned")
        room = room_for_prompt(context, conversation.max_tokens)
        return prompt_of(question, earlier, conversation.system, room)

    def ask(
        self,
        conversation: Conversation,
        question: str,
        *,
        model: str = "tuned",
        instead_of: str | None = None,
        already: str = "",
    ) -> None:
        """Start an answer; `instead_of` names the turn whose place it takes, with all that follows it.

        In a chat whatever still runs is stopped: its next question has come.
        """
        if conversation.kind == "chat":
            for turn in self.conversations.turns(conversation.id):
                self.streams.stop(turn.id)
        turns = self.conversations.turns(conversation.id) if conversation.kind == "chat" else []
        names = [turn.id for turn in turns]
        earlier = turns[: names.index(instead_of)] if instead_of in names else turns
        messages = self.prompt(conversation, question, earlier).messages
        added = self.conversations.add(
            conversation.id, question, model_of(self.run, model), instead_of=instead_of
        )
        answering = Answering(
            added.id,
            stream_of(model, messages, conversation.sampling),
            lambda error: explained(error, model, self.run),
            self.conversations,
            already,
        )
        self.streams.start(answering, added.id)

    def state_of(self, turn: Turn) -> tuple[Turn, Answering | None]:
        """The turn as it is now, and its answer if that is still on its way."""
        answering = self.streams.get(turn.id) if turn.status == RUNNING else None
        if answering or turn.status != RUNNING:
            return turn, answering
        ended = self.conversations.turn(turn.id) or turn  # between the two looks it may have ended
        if ended.status == RUNNING:
            ended = self.conversations.cut_off(turn.id, "The page lost track of this answer.") or ended
        return ended, None


def this_workspace() -> Workspace:
    """For the person who has the page open; ends the script for whoever may not."""
    owner = _owner()
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    return Workspace(run, Conversations(_database(run.resolve()), owner), _streams())


@lru_cache
def _database(run: Path) -> Path:
    """Prepared once in the life of a server, however many sessions it serves."""
    Conversations(run / DATABASE).prepare()
    return run / DATABASE


@lru_cache
def _streams() -> Streams:
    return Streams()


def _owner() -> str:
    """Nobody in particular on loopback; anywhere else the person who logged in."""
    if st.get_option("server.address") in LOOPBACK:
        return ""
    if problem := login_problem():
        st.error(f"This page listens beyond this machine and nobody can log in: {problem}.")
        st.code(HOW_TO, language=None)
        st.stop()
    if not st.user.is_logged_in:
        st.title("phi3flow")
        st.button("Log in", on_click=st.login, type="primary")
        st.stop()
    return str(st.user.get("sub") or st.user.get("email"))
