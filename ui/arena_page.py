"""The arena: one question, two unnamed answers, one vote. The vote reveals the models and the score.

Until then nothing that reaches the browser tells the sides apart: not a key, not an order, not a name.
"""

import random
import secrets
from collections.abc import Sequence
from functools import partial

import streamlit as st

from phi3flow.core.errors import BadInput
from phi3flow.core.sides import SIDES
from phi3flow.phi3_contract import Sampling
from ui.answers.served_flow import default_system_prompt
from ui.chat.model_settings import show_system_prompt
from ui.chat.turn_view import follow, show_answer
from ui.rendering import label, plain_html
from ui.store.records import COMPLETE, VOTES, Conversation, Turn
from ui.store.samples import asked_sample, offer_samples
from ui.store.votes import append_vote, score_of, vote_on
from ui.workspace import Workspace, asked, this_workspace

ROUND = "round"  # query parameter: a reload finds the round
NAMES = ("Amber", "Birch", "Cobalt", "Dune", "Ember", "Fjord", "Garnet", "Heath", "Iris", "Juniper")


def main() -> None:
    workspace = this_workspace()
    st.title("Arena")
    if not asked().arena:
        st.info("The base model is not served here. Stop this server and run:")
        st.code(f"phi3flow up {workspace.run} --arena", language="shell", wrap_lines=True)
        return
    question = st.chat_input("Ask both models") or asked_sample()
    if question.strip():
        _open_round(workspace, question.strip())
    name = st.query_params.get(ROUND) or st.session_state.get(ROUND)
    current = workspace.conversations.get(name) if name else None
    turns = workspace.conversations.turns(current.id) if current and current.kind == "arena" else []
    welcome = st.empty()
    if current and len(turns) == len(SIDES):
        show_system_prompt(current.system)
        _show_round(workspace, current, turns)
        return
    with welcome.container():
        st.markdown("Ask one question. Base and tuned answer side by side, without names until you vote.")
        show_system_prompt(default_system_prompt())
        offer_samples(workspace.run)


def _open_round(workspace: Workspace, question: str) -> None:
    """Ask both models at once, in random order: the first one is shown on the left."""
    opened = workspace.conversations.create(question, default_system_prompt(), Sampling(), kind="arena")
    models = [side.name for side in SIDES]
    secrets.SystemRandom().shuffle(models)
    for model in models:
        workspace.ask(opened, question, model=model)
    st.session_state[ROUND] = st.query_params[ROUND] = opened.id


def _show_round(workspace: Workspace, current: Conversation, turns: Sequence[Turn]) -> None:
    """Uses fixed places, so that the previous round stays visible until this one is drawn over it."""
    voted = vote_on(workspace.run / VOTES, current.id)
    st.html(plain_html(turns[0].question))
    hidden = random.Random(current.id).sample(NAMES, len(turns))
    following, states = [], []
    columns = st.columns(len(turns), border=True)
    for column, turn, name in zip(columns, turns, hidden, strict=True):
        with column:
            st.subheader(f"{name} is {turn.model}" if voted else name, anchor=False)
            place = st.empty()
        state, answer = workspace.state_of(turn)
        states.append(state)
        if answer:
            following.append((answer, place))
        else:
            with place.container():
                show_answer(state, named=bool(voted))
    below = st.empty()
    if following:
        follow(following)
    elif voted:
        with below.container():
            st.success(f"Your vote: {voted.replace('_', ' ')}. Ask the next question below.")
            _score(workspace)
    else:
        with below.container():
            _vote(workspace, current, states, hidden)


def _vote(workspace: Workspace, current: Conversation, turns: Sequence[Turn], hidden: Sequence[str]) -> None:
    if any(turn.status != COMPLETE for turn in turns):
        st.warning("A vote needs two complete answers.")
        st.button("Ask both again", on_click=_open_round, args=(workspace, turns[0].question))
        return
    path, question = workspace.run / VOTES, turns[0].question
    answers = {turn.model: turn.answer for turn in turns}
    named = [(f"{name} is better", turn.model) for name, turn in zip(hidden, turns, strict=True)]
    with st.container(horizontal=True):
        for place, (text, vote) in enumerate([*named, ("Tie", "tie"), ("Both bad", "both_bad")]):
            cast = partial(append_vote, path, current.id, question, answers, vote, system=current.system)
            st.button(text, key=f"vote-{place}-{current.id}", on_click=cast)


def _score(workspace: Workspace) -> None:
    path = workspace.run / VOTES
    try:
        score = score_of(path)
    except BadInput as error:
        st.error(f"The votes cannot be counted: {label(str(error))}")
        return
    if score and score.win_rate is not None and score.win_rate_ci:
        low, high = score.win_rate_ci
        st.caption(
            f"Tuned is preferred in {100 * score.win_rate:.0f} % of {score.n} votes (95 % CI "
            f"{100 * low:.0f} to {100 * high:.0f} %; a tie is half a win). More: `phi3flow verdict {path}`"
        )


if __name__ == "__main__":
    main()
