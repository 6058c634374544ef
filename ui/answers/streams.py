"""The running answers of this server. Each has a thread, so that no click and no reload interrupts it.

Pages only watch. Any tab that shows the conversation finds its answer here until its end is saved, and in the
database after that.
"""

import threading

from ui.answers.running_answer import RunningAnswer


class Streams:
    """The running answers of this server, by turn id."""

    def __init__(self) -> None:
        self._running: dict[str, RunningAnswer] = {}

    def start(self, answer: RunningAnswer) -> None:
        self._running[answer.turn] = answer
        threading.Thread(target=self._run, args=(answer,), name=f"answer {answer.turn}", daemon=True).start()

    def get(self, turn: str) -> RunningAnswer | None:
        return self._running.get(turn)

    def stop(self, turn: str) -> None:
        if answer := self._running.get(turn):
            answer.stop()

    def _run(self, answer: RunningAnswer) -> None:
        try:
            answer.run()
        finally:
            answer.abandon()
            self._running.pop(answer.turn, None)
