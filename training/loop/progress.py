"""What a run tells while it trains: a line on stderr, and every figure in `metrics.jsonl`."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from phi3flow.core.console import say
from phi3flow.core.jsonl import to_line

KEPT = ("loss", "eval_loss", "learning_rate", "grad_norm", "eval_mean_token_accuracy")


class MetricsFile(TrainerCallback):
    """Append each logged step to `path`: step, seconds, and loss or eval_loss in nats per token."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.started = time.monotonic()
        self.train_loss: float | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {name: value for name, value in (logs or {}).items() if name in KEPT}
        if not values or not state.is_world_process_zero:
            return
        seconds = round(time.monotonic() - self.started, 2)
        with self.path.open("ab") as stream:
            stream.write(to_line({"step": state.global_step, "seconds": seconds, **values}))
        self.train_loss = values.get("loss", self.train_loss)
        if "eval_loss" in values:
            done = f"{state.global_step}/{state.max_steps}"
            shown = f"{self.train_loss:.3f}" if self.train_loss is not None else "-"
            validation = f"{values['eval_loss']:.3f}"
            say(f"  {self.name} step {done:>9}  loss {shown}  validation {validation}  {seconds:.0f} s")
