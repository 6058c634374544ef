"""A chat template taken apart: what it writes around each turn, for runtimes that know no Jinja."""

from typing import TYPE_CHECKING, NamedTuple

from phi3flow.core.errors import Phi3flowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Chat = list[dict[str, str]]
CHAT: Chat = [
    {"role": "system", "content": "One"},
    {"role": "user", "content": "Two"},
    {"role": "assistant", "content": "Three"},
    {"role": "user", "content": "Four"},
]
ROLES = ("system", "user", "assistant")


class Around(NamedTuple):
    """What stands before and behind the text of a turn."""

    before: str
    behind: str


class Turns(NamedTuple):
    """`answer` opens the assistant's next turn.

    `system` is the prompt that the template itself writes into a chat without one, or an empty text.
    """

    around: dict[str, Around]
    answer: str
    system: str

    def rendered(self, chat: Chat) -> str:
        """The chat and the opening of its answer, as the template renders it."""
        own = [{"role": "system", "content": self.system}] if self.system else []
        whole = chat if chat[0]["role"] == "system" else [*own, *chat]
        return "".join(turn["content"].join(self.around[turn["role"]]) for turn in whole) + self.answer


def turns_of(tokenizer: "PreTrainedTokenizerBase") -> Turns:
    """Raises Phi3flowError for a template that writes more than a text before and behind each turn."""
    whole = [_rendered(tokenizer, CHAT[:end]) for end in range(1, 4)]
    turns = [after.removeprefix(before) for before, after in zip(["", *whole[:2]], whole, strict=True)]
    parts = [turn.partition(said["content"]) for turn, said in zip(turns, CHAT[:3], strict=True)]
    around = {role: Around(part[0], part[2]) for role, part in zip(ROLES, parts, strict=True)}
    answer = _rendered(tokenizer, CHAT, answering=True).removeprefix(_rendered(tokenizer, CHAT))
    found = Turns(around, answer, _own_system(tokenizer, around))
    for chat in (CHAT, CHAT[1:2], CHAT[1:]):
        if found.rendered(chat) != _rendered(tokenizer, chat, answering=True):
            raise Phi3flowError(
                "the chat template does more than write a text before and behind each turn",
                hint="export in a format whose runtime renders Jinja: onnx or openvino",
            )
    return found


def _own_system(tokenizer: "PreTrainedTokenizerBase", around: dict[str, Around]) -> str:
    alone = _rendered(tokenizer, CHAT[1:2])
    before = alone.removesuffix("Two".join(around["user"]))
    return before.removeprefix(around["system"].before).removesuffix(around["system"].behind)


def _rendered(tokenizer: "PreTrainedTokenizerBase", chat: Chat, *, answering: bool = False) -> str:
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=answering))
