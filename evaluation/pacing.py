"""How many requests to one endpoint are in flight: few at first, more while answers are fast, fewer if not.

The additive increase and multiplicative decrease of TCP (Chiu and Jain 1989, Computer Networks and ISDN
Systems 17, 1-14), with the endpoint's deadline instead of a lost packet.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar, cast

from phi3flow.phi3_contract import Endpoint, Pause, TimedOut

T = TypeVar("T")
FIRST = 2  # requests in flight until the first answer
FAST, SLOW = 1 / 8, 1 / 2  # shares of the deadline: a faster answer allows one more request, a slower halves
MISSED = (
    0.4  # share of the deadline after which a failed request was not refused at once; back-off ends from 1/2
)
TRIES = 3  # for a request that fails so late
STOPPED_AFTER = 1.9  # deadlines without an answer, and
STOPPED_REQUESTS = 3  # requests that missed theirs: one question may be too much for a model that goes on
PATIENCE_SECONDS = (
    900.0  # without any answer for this long, a request fails although the endpoint asks to wait
)
LONGEST_PAUSE_SECONDS = 60.0  # or the deadline, if that is longer; then the endpoint is asked again
STOPPED = "the endpoint has stopped answering"
REFUSES = f"the endpoint has asked to wait for {PATIENCE_SECONDS / 60:.0f} minutes, and answered nothing"


class Pace(Pause):
    """Shared by all threads that ask one endpoint, as its `pause`: decides when each may ask.

    At most `most` requests are in flight. `deadline` is the endpoint's timeout in seconds. An endpoint that
    gave no answer to several requests for twice as long has stopped: nothing more is asked.
    """

    def __init__(self, most: int, deadline: float) -> None:
        super().__init__()
        self.most, self.deadline = most, deadline
        self.limit = float(min(FIRST, most))
        self.in_flight = 0
        self._changed = threading.Condition()
        self._slowed = -float("inf")  # when the limit was last reduced
        self._last_answer = time.monotonic()
        self._unanswered: float | None = None  # when the first request after the last answer began
        self._missed = 0  # requests since the last answer, each counted once
        self._stopped = False

    def extend(self, seconds: float) -> None:
        """The endpoint is overloaded and asks to wait: also reduce the limit, once for each pause.

        It is asked again after a minute or its deadline, whatever it wants: it may want a day.
        """
        began = -float("inf") if self.seconds_left() else time.monotonic()
        super().extend(min(seconds, max(LONGEST_PAUSE_SECONDS, self.deadline)))
        self._alive()
        self._slow_down(began)

    def ask(self, request: Callable[[], T], failed: Callable[[T], bool]) -> T:
        """Call `request` when it is its turn, and again if it was too slow or came into a pause.

        Raises TimedOut if the endpoint has stopped answering, or has only asked to wait for too long.
        """
        tries = 0
        while True:
            began = self._begin()
            try:
                result = request()
            finally:
                self._end()
            seconds = time.monotonic() - began
            if not failed(result):
                self._answered(began, seconds)
                return result
            missed = seconds >= MISSED * self.deadline
            if missed:
                tries += 1
                self._miss(began, first=tries == 1)
            else:
                self._alive()  # a refusal is an answer, too
            if not self._again(missed, tries):
                return result

    def _begin(self) -> float:
        """Wait for the end of the endpoint's pause and for a free place. Raises TimedOut."""
        with self._changed:
            while True:
                if self._stopped:
                    raise TimedOut(STOPPED)
                pause = self.seconds_left()
                if pause and self._patience() <= 0:
                    raise TimedOut(REFUSES)
                if not pause and self.in_flight < max(1, int(self.limit)):
                    break
                self._changed.wait(min(pause, self._patience()) if pause else None)
            self.in_flight += 1
            began = time.monotonic()
            self._unanswered = began if self._unanswered is None else self._unanswered
        return began

    def _end(self) -> None:
        with self._changed:
            self.in_flight -= 1
            self._changed.notify_all()

    def _answered(self, began: float, seconds: float) -> None:
        with self._changed:
            self._last_answer = time.monotonic()
            self._alive()
            if seconds <= FAST * self.deadline:
                was_slow = self._slowed > -float("inf")
                self.limit = min(self.limit + (1 / self.limit if was_slow else 1), float(self.most))
                self._changed.notify_all()
        if seconds >= SLOW * self.deadline:
            self._slow_down(began)

    def _alive(self) -> None:
        with self._changed:
            self._unanswered, self._missed = None, 0

    def _miss(self, began: float, *, first: bool) -> None:
        self._slow_down(began)
        with self._changed:
            self._missed += first
            since = time.monotonic() if self._unanswered is None else self._unanswered
            if self._missed >= STOPPED_REQUESTS and time.monotonic() - since >= STOPPED_AFTER * self.deadline:
                self._stopped = True
                self._changed.notify_all()

    def _again(self, missed: bool, tries: int) -> bool:
        if self._stopped:
            return False
        paused = self.seconds_left() > 0 and self._patience() > 0
        return paused or (missed and tries < TRIES)

    def _patience(self) -> float:
        """Seconds for which lines still wait while the endpoint asks them to."""
        return self._last_answer + PATIENCE_SECONDS - time.monotonic()

    def _slow_down(self, began: float) -> None:
        """Halve the limit, unless a request that `began` at that time could not know the present one."""
        with self._changed:
            if began > self._slowed:
                self.limit = max(self.limit / 2, 1.0)
                self._slowed = time.monotonic()


def paced(endpoint: Endpoint, most: int) -> Endpoint:
    """The endpoint with a Pace; one that has a Pace already keeps it."""
    if isinstance(endpoint.pause, Pace):
        return endpoint
    return replace(endpoint, pause=Pace(most, endpoint.timeout))


def pace_of(endpoint: Endpoint) -> Pace:
    """The Pace that `paced` gave it."""
    return cast("Pace", endpoint.pause)
