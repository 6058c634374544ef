"""Chats longer than `max_length`: cut into windows, truncated, dropped or refused, as the recipe says.

window     as many whole turns as fit; the others become further examples with the turns before them as
           context. Each answer is learned once, and none is cut.
truncate   cut at max_length; an answer that the cut goes through bears no loss
drop       left out
refuse     an error
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from phi3flow.chats.chat import Chat, Message, bears_loss
from phi3flow.chats.chat_template import Example, Tools, encode_example, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LongChats = Literal["window", "truncate", "drop", "refuse"]
CONTEXT_SHARE = 0.5  # of max_length for the first answer and turns before it; the turn before is always there


@dataclass
class Lengths:
    """What a rule did. `tokens` are those of all chats, `kept_tokens` those of the examples made of them."""

    chats: int = 0
    long_chats: int = 0
    examples: int = 0
    tokens: int = 0
    kept_tokens: int = 0
    dropped_chats: int = 0  # of which no example is left
    unlearned_answers: int = 0  # of kept chats: cut, or too long with their question

    def told(self) -> dict[str, int]:
        return asdict(self)

    def sentence(self, rule: LongChats, max_length: int) -> str:
        """One line for people; '' if no chat is longer than `max_length`."""
        if not self.long_chats:
            return ""
        text = f"{self.long_chats:,} of {self.chats:,} chats are longer than max_length {max_length}"
        text += f' (long_chats = "{rule}"): {self.examples:,} examples, {self.kept_tokens:,} of '
        text += f"{self.tokens:,} tokens"
        if self.dropped_chats:
            text += f", {self.dropped_chats:,} chats dropped"
        if self.unlearned_answers:
            text += f", {self.unlearned_answers:,} answers not learned"
        return text


class Fitted(NamedTuple):
    """The examples of one chat, and how long it is in tokens."""

    examples: list[Example]
    tokens: int
    answers: int  # that bear loss


def fit(tokenizer: "PreTrainedTokenizerBase", chat: Chat, max_length: int, rule: LongChats) -> Fitted:
    """Examples of at most `max_length` tokens; with rule "refuse" the caller looks at `tokens`."""
    whole = encode_example(tokenizer, chat.messages, chat.tools)
    tokens, answers = len(whole.input_ids), sum(map(bears_loss, chat.messages))
    if tokens <= max_length:
        return Fitted([whole], tokens, answers)
    if rule == "window":
        examples = list(_windows(tokenizer, chat, max_length))
    elif rule == "truncate":
        examples = [_truncated(whole, max_length)]
    else:
        examples = []
    return Fitted([each for each in examples if any(each.assistant_mask)], tokens, answers)


def answers_in(example: Example) -> int:
    """How many answers of an example bear loss: runs of the mask."""
    mask = example.assistant_mask
    return sum(counts and not before for before, counts in zip([0, *mask], mask, strict=False))


def _truncated(whole: Example, max_length: int) -> Example:
    """The first tokens; an answer that goes on after them bears no loss."""
    ids, mask = whole.input_ids[:max_length], whole.assistant_mask[:max_length]
    if whole.assistant_mask[max_length]:
        for position in range(max_length - 1, -1, -1):
            if not mask[position]:
                break
            mask[position] = 0
    return Example(ids, mask)


def _windows(tokenizer: "PreTrainedTokenizerBase", chat: Chat, max_length: int) -> Iterator[Example]:
    """Examples that together learn every answer which fits with its question."""
    parts = _Parts.of(tokenizer, chat)
    learned = -1  # the last turn that was learned, or given up
    for answer in parts.answers:
        if answer <= learned:
            continue
        start, end = _window(parts, answer, max_length, first=learned < 0)
        before, learned = learned, answer
        while start < answer:
            example = encode_example(tokenizer, parts.window(start, end, before), chat.tools)
            if len(example.input_ids) <= max_length:
                yield example
                learned = end
                break
            start, end = _smaller(parts, start, answer, end)  # the sizes were estimates


class _Parts(NamedTuple):
    """A chat's turns without its system message, and about how many tokens each takes.

    `fixed` are the tokens of the system message and the tools, which every window has.
    """

    system: tuple[Message, ...]
    turns: tuple[Message, ...]
    sizes: list[int]
    fixed: int

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> "_Parts":
        def size(messages: Sequence[Message], tools: Tools = ()) -> int:
            return len(encode_prompt(tokenizer, messages, tools, add_generation_prompt=False))

        system = tuple(turn for turn in chat.messages[:1] if turn["role"] == "system")
        turns = chat.messages[len(system) :]
        sizes = [size([turn]) for turn in turns]
        return cls(system, turns, sizes, size([*system, turns[0]], chat.tools) - sizes[0])

    @property
    def answers(self) -> list[int]:
        return [i for i, turn in enumerate(self.turns) if bears_loss(turn)]

    def tokens(self, start: int, end: int) -> int:
        """Estimate of a window from turn `start` to turn `end`."""
        return self.fixed + sum(self.sizes[start : end + 1])

    def asks(self, i: int) -> bool:
        return bool(self.turns[i]["role"] == "user")

    def window(self, start: int, end: int, learned: int) -> list[Message]:
        """The messages of a window; answers up to turn `learned` are context."""
        chosen = enumerate(self.turns[start : end + 1], start)
        known = [
            {**turn, "weight": 0} if turn["role"] == "assistant" and i <= learned else turn
            for i, turn in chosen
        ]
        return [*self.system, *known]


def _window(parts: _Parts, answer: int, max_length: int, *, first: bool) -> tuple[int, int]:
    """First and last turn of a window around an answer: context before it, then as many answers as fit."""
    question = next((i for i in range(answer - 1, -1, -1) if parts.asks(i)), 0)
    needed = parts.tokens(question, answer)
    room = max_length if first else max(needed, int(max_length * CONTEXT_SHARE))
    starts = [i for i in range(question) if parts.asks(i) or i == 0]  # a greeting may come first
    near = next((i for i in reversed(starts) if parts.tokens(i, answer) <= max_length), question)
    start = next((i for i in starts if parts.tokens(i, answer) <= room), near)
    ends = [i for i in parts.answers if i > answer and parts.tokens(start, i) <= max_length]
    return start, max([answer, *ends])


def _smaller(parts: _Parts, start: int, answer: int, end: int) -> tuple[int, int]:
    """A window with one answer less behind, then with a question less before; an empty one at last."""
    if end > answer:
        return start, max(i for i in parts.answers if answer <= i < end)
    return next((i for i in range(start + 1, answer) if parts.asks(i)), answer), end
