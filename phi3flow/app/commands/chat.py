"""`phi3flow chat`: one answer, or a conversation in the terminal, through the chat flow."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

from typer import Argument, Option

from custom_connections.promptflow_home import enter_home
from custom_connections.store import load_endpoint
from phi3flow.app.flow_callers import known_key
from phi3flow.app.services import endpoint_of
from phi3flow.core.console import Outcome, complain, is_json, say, visible
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED
from phi3flow.phi3_contract import (
    Endpoint,
    FlowFailed,
    Rejected,
    Sampling,
    TooLong,
    Unauthorized,
    Unreachable,
    split_turns,
)
from ui.store.history import DEFAULT_CONTEXT, messages_of, prompt_of, room_for_prompt

Messages = list[dict[str, str]]
SHOWN_CHARACTERS = 160  # of the system prompt


class Said(NamedTuple):
    question: str
    answer: str


Ask = Callable[[Messages], Iterator[str]]


def chat(
    question: Annotated[
        str | None,
        Argument(metavar="QUESTION", help="What to ask (default: one question a line, until end of input)."),
    ] = None,
    *,
    connection: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Run the flow in this process with a stored connection "
            "(default: the flow that `phi3flow up` serves on port {flow_port}).",
        ),
    ] = None,
    system: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help='System prompt; "" sends none (default: that of the training data, if its rows share one).',
        ),
    ] = None,
) -> Outcome:
    """Ask the chat flow one question, or talk to it in the terminal.

    example: phi3flow chat "Who founded Microsoft?"
    """
    if is_json() and question is None:
        raise BadInput("--json prints one answer", hint='phi3flow chat --json "QUESTION"')
    if question is not None and not question.strip():
        raise BadInput("the question is empty", hint='phi3flow chat "Who founded Microsoft?"')
    settings = Settings.load()
    with TemporaryDirectory(prefix="phi3flow-") as folder:
        if connection:
            ask, endpoint = _loaded(connection, settings, Path(folder) / "chat")
            told = endpoint
        else:
            told, endpoint = _flow_of(settings), endpoint_of(TUNED, settings)
            ask = _served(told, settings)
        prompt = _default_prompt(told) if system is None else system
        if question is None:
            context = endpoint.context() or DEFAULT_CONTEXT
            return Outcome(exit_code=_talk(ask, prompt, context))
        asked = [*messages_of(prompt, []), {"role": "user", "content": question}]
        answer = "".join(ask(asked)) if is_json() else _print(ask(asked))
    return Outcome({"question": question, "answer": answer})


def _default_prompt(told: Endpoint) -> str:
    """What the endpoint or the served flow tells; the person reads it, too."""
    if prompt := told.system_prompt():
        start = visible(" ".join(prompt.split())[:SHOWN_CHARACTERS])
        say(f'(system prompt of the training data: {start}; --system "" sends none)')
    return prompt


def _talk(ask: Ask, system: str, context: int) -> int:
    """One question a line, each with as much of what was said before as fits; a failed one is left out."""
    failed = False
    said: list[Said] = []
    room = room_for_prompt(context, Sampling.max_tokens)
    for question in _lines():
        try:
            answer, said = _answer(ask, question, said, system, room)
            said.append(Said(question, answer))
        except Exception as error:
            if not hasattr(error, "hint"):
                raise
            complain(f"error: {error}\nhint: {error.hint}")
            failed = True
    return Phi3flowError.exit_code if failed else 0


def _answer(ask: Ask, question: str, said: list[Said], system: str, room: int) -> tuple[str, list[Said]]:
    """The answer, and the turns before it; the oldest are dropped until the endpoint takes the rest."""
    prompt = prompt_of(question, said, system, room)
    dropped = prompt.dropped
    while True:
        try:
            answer = _print(ask([*messages_of(system, said[dropped:]), prompt.messages[-1]]))
        except (TooLong, FlowFailed) as error:
            if dropped == len(said) or not isinstance(getattr(error, "cause", error), TooLong):
                raise
            dropped += 1
            continue
        if dropped:
            say(f"(the first {dropped} answers and their questions no longer fit, and are dropped)")
        return answer, said[dropped:]


def _lines() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    print(prompt, end="", file=sys.stderr, flush=True)
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
        print(prompt, end="", file=sys.stderr, flush=True)


def _print(pieces: Iterable[str]) -> str:
    """Show the answer as it grows. Returns it as it came; what would steer the terminal is only shown."""
    answer = ""
    for piece in pieces:
        print(visible(piece), end="", flush=True)
        answer += piece
    print(flush=True)
    return answer


def _flow_of(settings: Settings) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{settings.flow_port}/score", known_key(settings), "promptflow")


def _served(endpoint: Endpoint, settings: Settings) -> Ask:
    def ask(messages: Messages) -> Iterator[str]:
        try:
            yield from endpoint.stream(messages)
        except Unreachable:
            raise Phi3flowError(
                f"no chat flow is served on port {settings.flow_port}", "phi3flow up"
            ) from None
        except FlowFailed:
            raise
        except Unauthorized as error:
            raise Phi3flowError(
                f"the flow on port {settings.flow_port}: {error}",
                "ask from the folder in which `phi3flow up` was started: its key is kept there",
            ) from None
        except Rejected as error:
            # `pf flow serve` answers 400 whatever went wrong inside the flow; running it here says what.
            raise Phi3flowError(
                f"the served chat flow failed: {error}", "phi3flow chat --connection phi3-tuned says why"
            ) from None

    return ask


def _loaded(connection: str, settings: Settings, folder: Path) -> tuple[Ask, Endpoint]:
    """The same flow in this process; what its node raises is unwrapped from Prompt flow's own exception."""
    enter_home(settings)
    from promptflow.client import load_flow
    from promptflow.entities import FlowContext
    from promptflow.exceptions import PromptflowException

    endpoint = load_endpoint(connection)  # says what is wrong with it better than the flow would
    flow = load_flow(resolve_flow("chat", folder, connection=connection))
    flow.context = FlowContext(streaming=True)

    def ask(messages: Messages) -> Iterator[str]:
        turns = split_turns(messages)
        try:
            answer = flow(question=turns.question, chat_history=turns.history, system=turns.system)["answer"]
        except PromptflowException as error:
            cause = error.__cause__
            if type(cause).__name__ == TooLong.__name__:  # of the flow's own copy of the contract module
                raise TooLong(str(cause)) from None
            if hint := getattr(cause, "hint", None):
                raise Phi3flowError(str(cause), hint) from None
            raise
        yield from answer

    return ask, endpoint
