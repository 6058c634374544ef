"""The answers that a transformers model decodes together; they join and leave between any two steps."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.fixed_cache import FixedCache, span_of
from deploy.scoring.engines.sampling import next_tokens, sent

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

READ_AT_ONCE = 8192  # prompt tokens in one forward pass, padding included; one longer prompt is read alone


class Row:
    """One answer in the decoder. `length` tokens of it are in the cache; it gets `left` more steps."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.prompt = answer.request.prompt_token_ids
        self.left = answer.request.max_tokens
        self.length = 0

    @property
    def most(self) -> int:
        return len(self.prompt) + self.answer.request.max_tokens


class Step(NamedTuple):
    """The tokens that `rows` got, perhaps still being computed."""

    rows: Sequence[Row]
    tokens: "torch.Tensor"
    done: "torch.cuda.Event | None"

    def wait(self) -> list[int]:
        if self.done:
            self.done.synchronize()
        ids: list[int] = self.tokens.tolist()
        return ids


class Decoder:
    """Row `i` of `rows` is row `i` of the cache, of `_inputs` (its last token) and of `_positions`.

    A prompt is read but for its last token, which the next step reads. So every token of an answer comes from
    the same forward pass: one token a row.
    """

    def __init__(self, model: "PreTrainedModel", cache: FixedCache, max_rows: int) -> None:
        import torch

        keep_short_factors(model)
        self.rows: list[Row] = []
        self.max_rows = max_rows
        self._model, self._cache = model, cache
        self._window: int | None = getattr(model.config, "sliding_window", None)
        self._inputs = torch.zeros((max_rows, 1), dtype=torch.int64, device=model.device)
        self._positions = torch.zeros_like(self._inputs)
        self.forward: Callable[[int, int], torch.Tensor] = self.compute  # or CUDA graphs of it

    def fits(self, rows: Sequence[Row]) -> bool:
        """Whether `rows` can be in the decoder together, up to their last tokens."""
        span = span_of(max(row.most for row in rows))
        return len(rows) <= min(self.max_rows, self._cache.most_rows(span))

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of `rows`, which fit."""
        first = len(self.rows)
        self.rows += sorted(rows, key=lambda row: len(row.prompt))
        self._make_room()
        joined = self.rows[first:]
        for group in _groups([row.prompt[:-1] for row in joined], first):
            self.read(group)
        for row in joined:
            row.length = len(row.prompt) - 1
        self._inputs[first : len(self.rows), 0] = sent(
            [row.prompt[-1] for row in joined], self._inputs.device
        )
        self._positions[first : len(self.rows), 0] = sent([row.length for row in joined], self._inputs.device)

    def leave(self, row: Row) -> None:
        """Give up a row's place, which the last row takes; nothing happens if it has left already."""
        if row not in self.rows:
            return
        place, last = self.rows.index(row), len(self.rows) - 1
        self._cache.move(last, place, self.rows[last].length)
        for state in (self._inputs, self._positions):
            state[place] = state[last]
        self._positions[last] = 0
        self.rows[place] = self.rows[last]
        self.rows.pop()

    def step(self) -> Step:
        """Begin to compute a token for each row. Rows that get no more leave."""
        self._make_room()
        rows = list(self.rows)
        logits = self.forward(len(rows), self._cache.span)[: len(rows)]
        tokens = next_tokens(logits, [row.answer for row in rows])
        self._inputs[: len(rows), 0] = tokens
        self._positions[: len(rows)] += 1
        for row in rows:
            row.length, row.left = row.length + 1, row.left - 1
        for row in reversed(rows):  # the last first: then nothing moves when all end together
            if not row.left:
                self.leave(row)
        return Step(rows, *_fetched(tokens))

    def warm_up(self, context: int) -> None:
        """Read as many tokens at once as there can ever be, while there is no row."""
        span = span_of(context)
        count = max(1, min(READ_AT_ONCE // context, self.max_rows, self._cache.most_rows(span)))
        self._cache.resize(span, [])
        self.read(Prompts(0, [[0] * context] * count))

    def compute(self, rows: int, span: int) -> "torch.Tensor":
        """Logits of the next token of the first `rows`, of shape (rows, vocabulary)."""
        positions = self._positions[:rows]
        output = self._model(
            input_ids=self._inputs[:rows],
            position_ids=positions,
            attention_mask=self._mask(positions, span),
            past_key_values=self._cache.stepping(rows, span, positions[:, 0]),
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def read(self, group: "Prompts") -> None:
        """Keep the keys and values of a group of prompts.

        They are padded on the right, where causal attention never looks.
        """
        device, width, span = self._inputs.device, group.width, self._cache.span
        places = [(i, at) for i, prompt in enumerate(group.prompts) for at in range(len(prompt))]
        if not places:
            return
        padded = [token for prompt in group.prompts for token in (*prompt, *[0] * (width - len(prompt)))]
        source = [i * width + at for i, at in places]
        target = [(group.first + i) * span + at for i, at in places]
        self._model.base_model(
            input_ids=sent(padded, device).view(len(group.prompts), width),
            past_key_values=self._cache.reading(sent(source, device), sent(target, device)),
            use_cache=True,
        )

    def _mask(self, positions: "torch.Tensor", span: int) -> "torch.Tensor":
        """What to add to the attention of each row to each column, of shape (rows, 1, 1, span)."""
        import torch

        columns = torch.arange(span, device=positions.device)
        seen = columns <= positions
        if self._window:
            seen &= columns > positions - self._window
        dtype = self._model.dtype
        hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=positions.device)
        return torch.where(seen, hidden.new_zeros(()), hidden)[:, None, None, :]

    def _make_room(self) -> None:
        """Give the rows the shortest span for their next token; a little longer a span is left as it is."""
        longest = max(max(row.length, len(row.prompt) - 1) for row in self.rows) + 1
        span, now = span_of(longest), self._cache.span
        if now < span or now > 2 * span or len(self.rows) > self._cache.most_rows(now):
            self._cache.resize(span, [row.length for row in self.rows])


class Prompts(NamedTuple):
    """Prompts that are read in one forward pass, into the cache's rows from `first` on."""

    first: int
    prompts: Sequence[Sequence[int]]

    @property
    def width(self) -> int:
        return max(map(len, self.prompts))


def _groups(prompts: Sequence[Sequence[int]], first: int) -> Iterator[Prompts]:
    """As many at once as READ_AT_ONCE allows, in order."""
    start = 0
    for end in range(1, len(prompts) + 1):
        full = (
            end == len(prompts) or max(map(len, prompts[start : end + 1])) * (end + 1 - start) > READ_AT_ONCE
        )
        if full:
            yield Prompts(first + start, prompts[start:end])
            start = end


def keep_short_factors(model: "PreTrainedModel") -> None:
    """Within `served_context` longrope's short factors apply, which are a model's first ones.

    transformers reads the largest position on the host in every pass to see whether they still do, which
    waits for the GPU and breaks the capture of a graph.
    """
    for part in model.modules():
        if getattr(part, "rope_type", None) == "longrope":
            part.rope_type = "default"


def _fetched(tokens: "torch.Tensor") -> tuple["torch.Tensor", "torch.cuda.Event | None"]:
    """A copy on the host that does not wait for the device, and the event that says when it is complete."""
    import torch

    if tokens.device.type != "cuda":
        return tokens, None
    copy, done = tokens.to("cpu", non_blocking=True), torch.cuda.Event()
    done.record()
    return copy, done
