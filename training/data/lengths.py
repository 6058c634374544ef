"""How many tokens chats have, as `prepare --model` prints it: the first GPU minute should not tell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from phi3flow.chats.chat import Chat
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.chats.template_check import keep_tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = (1024, 2048, 4096)


@dataclass(frozen=True)
class Distribution:
    """Tokens per chat. `above` has the share of chats that are longer than each of MARKS."""

    chats: int
    tokens: int
    mean: float
    p50: int
    p95: int
    most: int
    above: Mapping[int, float]

    def told(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        shares = ", ".join(f"{share:.1%} above {mark:,}" for mark, share in self.above.items())
        return (
            f"tokens per chat: mean {self.mean:,.0f}, p50 {self.p50:,}, p95 {self.p95:,}, "
            f"max {self.most:,}; {shares}"
        )


def token_counts(tokenizer: "PreTrainedTokenizerBase", chats: Sequence[Chat]) -> list[int]:
    """How long each chat is. Raises TemplateRefused for a chat that the model's template does not take."""
    keep_tools(tokenizer, chats)
    return [
        len(encode_prompt(tokenizer, chat.messages, chat.tools, add_generation_prompt=False))
        for chat in chats
    ]


def distribution(counts: Sequence[int]) -> Distribution:
    sizes = sorted(counts)
    count, total = len(sizes), sum(sizes)
    above = {mark: sum(size > mark for size in sizes) / count for mark in MARKS}
    return Distribution(
        count, total, total / count, sizes[count // 2], sizes[int(count * 0.95)], sizes[-1], above
    )
