"""A button that copies a text to the clipboard, which Streamlit has only inside its code blocks."""

import streamlit as st

# Streamlit inserts it as it stands; the text to copy arrives as data and never becomes HTML.
HTML = "<button type='button'>Copy</button>"
CSS = """
button { all: unset; cursor: pointer; font-size: 0.875rem; color: inherit; padding: 0.25rem 0.5rem;
  border-radius: 0.5rem; }
button:hover { color: var(--st-primary-color); }
button:focus-visible { outline: 2px solid var(--st-primary-color); }
"""
# Browsers give pages without TLS, other than those of this machine, no clipboard but the old command.
JS = """
export default function({ parentElement, data }) {
  const button = parentElement.querySelector("button");
  const copyOld = () => {
    const area = document.createElement("textarea");
    area.value = data;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  button.onclick = async () => {
    try { await navigator.clipboard.writeText(data); } catch { copyOld(); }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
}
"""
_component = st.components.v2.component("phi3flow_copy", html=HTML, css=CSS, js=JS)


def copy_button(text: str, key: str) -> None:
    _component(data=text, key=key, width="content", height="content")
