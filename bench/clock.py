"""How long a run of transformers' trainer took, from its first step to the end of its last."""

import json
import time

from transformers import TrainerCallback


class Clock(TrainerCallback):
    first = last = 0.0
    steps = 0

    @property
    def seconds(self):
        return self.last - self.first

    def on_train_begin(self, *args, **kwargs):
        self.first = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.last, self.steps = time.perf_counter(), state.global_step


class CountingClock(Clock):
    """Prints what bench/peers.py reads: seconds, steps, and how many tokens of a pass bear loss."""

    tokens = 0

    def on_train_begin(self, *args, train_dataloader, **kwargs):
        self.tokens = sum(label >= 0 for row in train_dataloader.dataset for label in row["labels"])
        super().on_train_begin()

    def print(self):
        print(json.dumps({"seconds": self.seconds, "steps": self.steps, "tokens": self.tokens}))
