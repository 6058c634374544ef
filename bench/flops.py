"""Model FLOPs utilisation (MFU): the operations of a training step, and the peak of a device."""

from typing import NamedTuple

# Dense bf16 with fp32 accumulation, in TFLOP/s, from NVIDIA's data sheets (half the figure "with sparsity").
PEAK_TFLOPS = {
    "H200": 989,
    "H100 PCIe": 756,  # before "H100", which is part of this name
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "A10": 125,
    "L4": 121,
    "RTX 4090": 165,
}


class Work(NamedTuple):
    """Counts over some batches: tokens, tokens that count toward the loss, attention pairs."""

    tokens: int
    answers: int
    pairs: int

    @classmethod
    def of(cls, batch):
        if "position_ids" in batch:
            starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
            ends = [*starts[1:], batch["position_ids"].shape[1]]
            lengths = [end - start for start, end in zip(starts, ends, strict=True)]
        else:
            lengths = batch["attention_mask"].sum(1).tolist()
        answers = int((batch["labels"] != -100).sum())
        return cls(sum(lengths), answers, sum(n * (n + 1) // 2 for n in lengths))


def executed_flops(config, work, *, lora_rank=None):
    """Floating point operations of forward and backward, two per multiply-add, without recomputation.

    Per token, a weight costs 2 forward, 2 for its input's gradient, and 2 for its own gradient if it is
    trained: 6 in full fine-tuning, 4 below adapters. The output layer counts only for tokens in the loss.
    Attention has no weights: scores and sums cost 4 per pair and channel forward, and twice that backward.
    """
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    hidden, inner = config.hidden_size, config.intermediate_size
    linears = [(hidden, queries + 2 * keys), (queries, hidden), (hidden, 2 * inner), (inner, hidden)]
    layers = config.num_hidden_layers
    weights = layers * sum(rows * columns for rows, columns in linears)
    projected = weights * work.tokens + config.vocab_size * hidden * work.answers
    attention = 12 * layers * queries * work.pairs
    if lora_rank is None:
        return 6 * projected + attention
    adapters = layers * lora_rank * sum(rows + columns for rows, columns in linears)
    return 4 * projected + 6 * adapters * work.tokens + attention


def peak_flops(device):
    """Peak FLOP/s of a device by its CUDA name; None if the table does not have it."""
    words = set(device.replace("-", " ").split())
    known = (tflops * 1e12 for name, tflops in PEAK_TFLOPS.items() if words.issuperset(name.split()))
    return next(known, None)
