"""Show answers while they grow. A click interrupts the showing, never the answers: the next run goes on."""

import time
from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.rendering import answer_html
from ui.streams import Answering, Progress

CURSOR = "▌"
FRAME_SECONDS = 0.04  # a browser shows no more than this, however fast the tokens come
BREATHS_PER_SECOND = 2  # so often a click is noticed while no token comes
QUIET_SECONDS = 1  # so long a first token may take before the wait is spoken of
REST = 4  # of the time that drawing takes: a long answer must not cost a whole core


def follow(shown: Sequence[tuple[Answering, DeltaGenerator]]) -> None:
    """Draw each answer into its place until all have ended, then run the page anew."""
    drawn: dict[int, tuple[str, int]] = {}
    while True:
        began = time.monotonic()
        running = False
        for number, (answering, place) in enumerate(shown):
            progress = answering.progress()
            running = running or progress.running
            look = (progress.text, int(progress.seconds * BREATHS_PER_SECOND))
            if drawn.get(number) != look:
                _draw(place, progress)
                drawn[number] = look
        if not running:
            st.rerun()
        time.sleep(max(FRAME_SECONDS, REST * (time.monotonic() - began)))


def _draw(place: DeltaGenerator, progress: Progress) -> None:
    if progress.retry_in is not None:
        place.info(f"The endpoint is overloaded: it is asked again in {progress.retry_in:.0f} s.")
    elif not progress.text and progress.seconds > QUIET_SECONDS:
        place.caption(f"Waiting for the first word, {progress.seconds:.0f} s.")
    else:
        place.html(answer_html(progress.text + (CURSOR if progress.running else "")))
