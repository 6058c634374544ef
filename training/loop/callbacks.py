"""What happens beside the steps of a run: metrics.jsonl, progress on stderr, and Ctrl-C."""

import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from phi3flow.core.console import is_quiet, say
from phi3flow.core.jsonl import to_line
from phi3flow.core.progress import Progress
from training.ranks import is_main_process, several

LOGGED = ("loss", "eval_loss", "learning_rate", "grad_norm", "eval_mean_token_accuracy")


class MetricsFile(TrainerCallback):
    """Appends each logged step to `path`, and says each validation in one line on stderr.

    A row holds step, seconds and some of LOGGED; losses are in nats per assistant token.
    """

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
        values = {name: value for name, value in (logs or {}).items() if name in LOGGED}
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


class StepBar(TrainerCallback):
    """A bar in a terminal, until `stack` closes. A log has the lines of `MetricsFile`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._bar: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if is_main_process() and sys.stderr.isatty() and not is_quiet():
            self._bar = self._stack.enter_context(Progress("steps", state.max_steps, done=state.global_step))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar:
            self._bar.reach(state.global_step)


class StopOnInterrupt(TrainerCallback):
    """The first Ctrl-C ends the run after this step, with a checkpoint; the second ends it at once.

    With several ranks the first one does, too: they would not all stop after the same step.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._before: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if threading.current_thread() is threading.main_thread() and not several():
            self._before = signal.signal(signal.SIGINT, self._note)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
