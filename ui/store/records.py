"""What the page keeps: conversations, their turns, and the model that answered each."""

from typing import NamedTuple

from phi3flow.phi3_contract import Sampling

DATABASE, VOTES = "chat.sqlite", "preferences.jsonl"  # in the run folder
RUNNING, COMPLETE, CUT, STOPPED, FAILED = "running", "complete", "cut", "stopped", "failed"


class Conversation(NamedTuple):
    """The settings of every question in it. `kind` is chat or arena.

    `changed` and `asked` are Unix times: of the last change of any kind, and of the last question.
    """

    id: str
    kind: str
    title: str
    system: str
    temperature: float
    max_tokens: int
    changed: float
    asked: float

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.max_tokens)


class Model(NamedTuple):
    """`base` or `tuned`, the content hash of its folder and that of the data it was tuned on.

    What was connected from elsewhere has its connection's or flow's name, and no hashes.
    """

    name: str
    model_hash: str = ""
    data_hash: str = ""


class Turn(NamedTuple):
    """A question and its answer so far. `error` is one sentence on why the answer ended early.

    `thumb` is 1 for up, 0 for down, None for neither. `correction` is the answer that the person wanted
    instead. Times are seconds since the question.
    """

    id: str
    conversation: str
    question: str
    model: str
    model_hash: str
    data_hash: str
    answer: str
    status: str
    error: str
    first_token_seconds: float | None
    seconds: float | None
    thumb: int | None
    comment: str
    correction: str
