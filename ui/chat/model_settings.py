"""The model's settings in the sidebar, and what the page says of the system prompt."""

import streamlit as st

from phi3flow.phi3_contract import Sampling
from ui.answers.served_flow import default_system_prompt
from ui.rendering import label
from ui.store.records import Conversation
from ui.workspace import Workspace

PROMPT_CHARACTERS = 4000  # of the longest system prompt that the page takes
SHOWN_CHARACTERS = 160  # of it, above the conversation


def model_settings(workspace: Workspace, conversation: Conversation | None) -> tuple[str, Sampling]:
    """Draw them. Returns the system prompt and the sampling of the conversation.

    A new conversation starts with the training data's system prompt, the rest as in the latest one.
    """
    latest = conversation or next(iter(workspace.conversations.search()), None)
    system, sampling = (latest.system, latest.sampling) if latest else ("", Sampling())
    trained = default_system_prompt()
    suffix = conversation.id if conversation else "new"

    def chosen() -> tuple[str, Sampling]:
        values = [st.session_state[f"{name}-{suffix}"] for name in ("system", "temperature", "max-tokens")]
        return values[0].strip(), Sampling(values[1], values[2])

    def save() -> None:
        if conversation:
            workspace.conversations.set_sampling(conversation.id, *chosen())

    def restore() -> None:
        st.session_state[f"system-{suffix}"] = trained
        save()

    with st.expander("Model settings"):
        shown = system if conversation else trained or system
        key, longest = f"system-{suffix}", max(PROMPT_CHARACTERS, len(trained))
        prompt = st.text_area(
            "System prompt", shown, placeholder="none", max_chars=longest, key=key, on_change=save
        )
        if trained and (prompt or "").strip() != trained:
            st.button("Use that of the training data", on_click=restore)
        st.slider(
            "Temperature",
            0.0,
            2.0,
            sampling.temperature,
            0.1,
            key=f"temperature-{suffix}",
            on_change=save,
            help="0 always picks the most likely token",
        )
        st.slider(
            "Longest answer, in tokens",
            16,
            1024,
            sampling.max_tokens,
            16,
            key=f"max-tokens-{suffix}",
            on_change=save,
        )
    return chosen()


def show_system_prompt(system: str) -> None:
    """What the model is told before the first question, and whether that is what it was trained with."""
    trained = default_system_prompt()
    if trained and system != trained:
        done = "changed" if system else "removed"
        st.info(
            f"The system prompt of the training data is {done} here: this is not the model that was judged. "
            "Model settings bring it back."
        )
    if system:
        whose = "System prompt of the training data" if system == trained else "System prompt"
        more = "…" if len(system) > SHOWN_CHARACTERS else ""
        st.caption(f"{whose}: {label(system[:SHOWN_CHARACTERS])}{more}")
