"""What all pages and sessions of this server share: the run, its conversations and the running answers."""

import argparse
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from phi3flow.core.lineage import MANIFEST
from phi3flow.core.served_model import served_run
from phi3flow.core.sides import TUNED
from ui.answers.problems import explained
from ui.answers.running_answer import RunningAnswer
from ui.answers.served_flow import flow_of, served_context
from ui.answers.streams import Streams
from ui.login import owner
from ui.store.conversations import Conversations, title_of
from ui.store.history import Prompt, context_of, prompt_of, room_for_prompt
from ui.store.latest_report import json_in
from ui.store.records import CUT, DATABASE, RUNNING, Conversation, Model, Turn

SHOWN_HASH = 12  # digits of a SHA-256


class Asked(NamedTuple):
    """What `phi3flow up` says: the run, and the name and context of what answers if not its tuned/."""

    run: Path
    arena: bool = False
    name: str = ""
    context: int | None = None


def asked() -> Asked:
    """From the command line of this server: `app.py RUN [--arena] [--name NAME] [--context TOKENS]`."""
    parser = argparse.ArgumentParser(prog="app.py")
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/demo"))
    parser.add_argument("--arena", action="store_true")
    parser.add_argument("--name", default="")
    parser.add_argument("--context", type=int)
    return Asked(**vars(parser.parse_args(sys.argv[1:])))


class Workspace(NamedTuple):
    """The run and one person's conversations about it. `name` is that of what answers if not its tuned/."""

    run: Path
    conversations: Conversations
    streams: Streams
    name: str = ""
    context: int | None = None

    @property
    def answered_by(self) -> str:
        return self.name or f"the tuned model of {self.run.name}"

    def prompt(self, conversation: Conversation, question: str, earlier: list[Turn]) -> Prompt:
        told = self.context if self.name else served_context()
        room = room_for_prompt(told or context_of(served_run(self.run) / TUNED.name), conversation.max_tokens)
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
        """Start an answer, as a version of the turn `instead_of` if that is given.

        Does nothing for an empty question. In a chat this stops the answer that is still running. `already`
        is the text to keep until the new answer is longer.
        """
        if not question:
            return
        earlier = self._earlier(conversation, question, instead_of) if conversation.kind == "chat" else []
        messages = self.prompt(conversation, question, earlier).messages
        added = self.conversations.add(conversation.id, question, self._model(model), instead_of=instead_of)
        endpoint = flow_of(model)
        answer = RunningAnswer(
            added.id,
            lambda: endpoint.stream(messages, conversation.sampling),
            lambda error: explained(error, model, self.run),
            self.conversations,
            already,
        )
        self.streams.start(answer)

    def _earlier(self, conversation: Conversation, question: str, instead_of: str | None) -> list[Turn]:
        """The turns before the new one; a new first question gives the conversation its title."""
        for turn in self.conversations.turns(conversation.id):
            self.streams.stop(turn.id)
        turns = self.conversations.turns(conversation.id)  # with what the stopped answer had so far
        names = [turn.id for turn in turns]
        if instead_of not in names:
            return turns
        earlier = turns[: names.index(instead_of)]
        if not earlier and conversation.title == title_of(turns[0].question):
            self.conversations.rename(conversation.id, title_of(question))
        return earlier

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

    def _model(self, name: str) -> Model:
        """Model `base` or `tuned` of the run; hashes are empty without a manifest."""
        if self.name:
            return Model(self.name)
        run = served_run(self.run) if name == TUNED.name else self.run
        manifest = json_in(run / name / MANIFEST)
        hashes = {artifact["kind"]: artifact["sha256"] for artifact in reversed(manifest.get("inputs", []))}
        own = [artifact["sha256"] for artifact in manifest.get("outputs", [])]
        return Model(name, own[0] if own else "", hashes.get("data", ""))


def this_workspace() -> Workspace:
    """The workspace of the person who opened the page; stops the script if a login is needed."""
    person, told = owner(), asked()
    database, streams = _of_server(told.run.resolve())
    return Workspace(told.run, Conversations(database, person), streams, told.name, told.context)


@lru_cache
def _of_server(run: Path) -> tuple[Path, Streams]:
    """The database, prepared once, and the running answers: the same for all sessions of this server."""
    Conversations(run / DATABASE).prepare()
    return run / DATABASE, Streams()
