"""The Streamlit app: `streamlit run ui/app.py -- RUN [--arena]`. `phi3flow up` starts it."""

import sqlite3
from pathlib import Path

import streamlit as st

from phi3flow.core.errors import BadInput
from ui.rendering import label
from ui.workspace import asked

# Inline: Streamlit loads emoji and material icons for the browser tab from the internet.
LOGO = """<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 24 24">
<rect width="24" height="24" rx="6" fill="#0067b8"/>
<g fill="none" stroke="#fff" stroke-width="2"><circle cx="12" cy="12" r="4.5"/><path d="M12 4v16"/></g>
</svg>"""


def main() -> None:
    st.set_page_config(page_title="phi3flow", page_icon=LOGO, layout="centered")
    st.logo(LOGO, size="large")
    st.html(Path(__file__).with_name("style.css"))
    page = st.navigation(
        [
            st.Page("chat_page.py", title="Chat", default=True),
            st.Page(
                "arena_page.py",
                title="Arena",
                url_path="arena",
                visibility="visible" if asked().arena else "hidden",
            ),
            st.Page("report_page.py", title="Report", url_path="report"),
            st.Page("improve_page.py", title="Improve", url_path="improve"),
        ]
    )
    try:
        page.run()
    except sqlite3.Error as error:
        st.error(f"The conversations in chat.sqlite cannot be read or written: {label(str(error))}.")
    except BadInput as error:  # a broken file of the run
        st.error(label(str(error)))
        st.code(error.hint, language=None, wrap_lines=True)


if __name__ == "__main__":  # not in a process that is spawned from this one
    main()
