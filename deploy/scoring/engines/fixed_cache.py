"""The keys and values of all running answers, in memory that is allocated once."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

FIRST_SPAN = 128


def span_of(tokens: int) -> int:
    """The length of a row that holds so many tokens: FIRST_SPAN times a power of two."""
    span = FIRST_SPAN
    while span < tokens:
        span *= 2
    return span


def shape_of(config: "PretrainedConfig") -> tuple[int, int, int]:
    """Layers, heads of keys and values, and the size of a head."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, config.num_key_value_heads, size


def bytes_per_token(config: "PretrainedConfig", bytes_per_value: int) -> int:
    """What a token's keys and values take, in all layers together."""
    layers, heads, size = shape_of(config)
    return 2 * bytes_per_value * layers * heads * size


class FixedCache:
    """Rows of `span` tokens each, one behind the other, in every layer; a step reads the first as a view.

    Moving a row, or all rows to another span, copies only the tokens that they hold.
    """

    def __init__(
        self, config: "PretrainedConfig", tokens: int, dtype: "torch.dtype", device: "torch.device"
    ) -> None:
        layers, heads, size = shape_of(config)
        self.tokens, self.span = tokens, FIRST_SPAN
        self._memory = _zeros((layers, 2, tokens, heads, size), dtype, device)

    @property
    def bytes(self) -> int:
        return self._memory.nbytes

    def most_rows(self, span: int) -> int:
        return self.tokens // span

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy a row's first tokens to another row."""
        self._copy(source * self.span, target * self.span, tokens)

    def resize(self, span: int, lengths: list[int]) -> None:
        """Make the rows longer or shorter; row `i` holds `lengths[i]` tokens.

        Spans differ by a power of two, so a row never overlaps its own copy, and in this order it never
        overwrites a row that has yet to move.
        """
        rows = list(enumerate(lengths))
        for row, tokens in reversed(rows) if span > self.span else rows:
            self._copy(row * self.span, row * span, tokens)
        self.span = span

    def _copy(self, source: int, target: int, tokens: int) -> None:
        if source != target and tokens:
            memory = self._memory
            memory[:, :, target : target + tokens].copy_(memory[:, :, source : source + tokens])

    def reading(self, source: "torch.Tensor", target: "torch.Tensor") -> "PromptPass":
        """For a pass over new prompts: token `source[i]` of its padded batch is kept at `target[i]`."""
        return PromptPass(self._memory, source, target)

    def stepping(self, rows: int, span: int, positions: "torch.Tensor") -> "StepPass":
        """For a pass that adds a token to each of the first `rows`, at `positions` of shape (rows,)."""
        import torch

        target = torch.arange(rows, device=positions.device) * span + positions
        return StepPass(self._memory, rows, span, target)


class PromptPass:
    """What a model takes as `past_key_values` to read prompts, which see nothing but themselves."""

    def __init__(self, memory: "torch.Tensor", source: "torch.Tensor", target: "torch.Tensor") -> None:
        self._memory, self._source, self._target = memory, source, target

    def get_seq_length(self, *_: object) -> int:
        return 0

    def get_mask_sizes(self, queries: int, *_: object) -> tuple[int, int]:
        return queries, 0

    def update(
        self, keys: "torch.Tensor", values: "torch.Tensor", layer: int, *_: object, **__: object
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Keep the prompts' keys and values, of shape (prompts, heads, length, head size)."""
        for kind, states in enumerate((keys, values)):
            tokens = states.transpose(1, 2).flatten(0, 1).index_select(0, self._source)
            self._memory[layer, kind].index_copy_(0, self._target, tokens)
        return keys, values


class StepPass:
    """What a model takes as `past_key_values` to add a token to each row; the mask hides what a row lacks."""

    def __init__(self, memory: "torch.Tensor", rows: int, span: int, target: "torch.Tensor") -> None:
        self._memory, self._rows, self._span, self._target = memory, rows, span, target

    def get_seq_length(self, *_: object) -> int:
        return self._span

    def update(
        self, keys: "torch.Tensor", values: "torch.Tensor", layer: int, *_: object, **__: object
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Keep keys and values of shape (rows, heads, 1, head size); all of the rows' ones come back."""
        kept = self._memory[layer]
        for kind, states in enumerate((keys, values)):
            kept[kind].index_copy_(0, self._target, states[:, :, 0])
        held = kept[:, : self._rows * self._span].unflatten(1, (self._rows, self._span)).transpose(2, 3)
        return held[0], held[1]


def _zeros(shape: tuple[int, ...], dtype: "torch.dtype", device: "torch.device") -> "torch.Tensor":
    """Zeros, because a masked column's value is multiplied by 0, which would keep a NaN.

    On a CPU NumPy's: the system gives their pages when they are first written, torch's at once.
    """
    import numpy as np
    import torch

    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    items = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(np.zeros(items, dtype=np.uint8)).view(dtype).view(shape)
