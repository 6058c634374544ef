"""Untrusted text as HTML without anything active.

Markdown gives headings, lists, tables, emphasis and code. Raw HTML, links and images are shown as text, so
nothing is fetched and nothing can be clicked. Streamlit sanitises the result again (DOMPurify).
"""

import html
import re
from functools import lru_cache

from markdown_it import MarkdownIt

MARKDOWN_CHARACTERS, TABLE_BARS = 10_000, 1_000  # plain text beyond either: some Markdown takes forever
SHOWN_CHARACTERS = 40_000
GROWTH = 20  # plain text if the HTML is this many times longer: a table with thousands of empty cells
# Invisible characters that reverse the text after them, even outside the answer: shown by their code points.
# Arabic and Hebrew do not need them.
BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
NOT_RENDERED = ["link", "image", "autolink", "reference", "html_block", "html_inline"]
_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable(NOT_RENDERED)
# The default would turn a code block's language into a CSS class.
_markdown.add_render_rule(
    "fence", lambda _, tokens, index, *__: f"<pre><code>{html.escape(tokens[index].content)}</code></pre>\n"
)


@lru_cache(maxsize=256)
def answer_html(text: str) -> str:
    """A model's answer as rendered Markdown, isolated from the text around it."""
    shown, note = _bounded(text)
    if len(shown) <= MARKDOWN_CHARACTERS and shown.count("|") <= TABLE_BARS:
        rendered = _markdown.render(shown)
        if len(rendered) <= GROWTH * len(shown) + 1000:
            return _isolated(rendered, note, "phi3flow-answer")
    return plain_html(text, "phi3flow-answer")


def plain_html(text: str, kind: str = "phi3flow-question") -> str:
    """Text without Markdown; keeps line breaks."""
    shown, note = _bounded(text)
    return _isolated(f'<div class="phi3flow-plain">{html.escape(shown)}</div>', note, kind)


def label(text: str) -> str:
    """Text for a button's label. Streamlit reads labels as Markdown; a title must not become an image."""
    return PUNCTUATION.sub(r"\\\1", _visible(text).replace("\n", " "))


def _visible(text: str) -> str:
    named = BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return named.replace("\0", "\ufffd")


def _bounded(text: str) -> tuple[str, str]:
    """The visible text up to SHOWN_CHARACTERS, and a note if there is more."""
    visible = _visible(text)
    more = len(visible) - SHOWN_CHARACTERS
    return visible[:SHOWN_CHARACTERS], f"{more} more characters: export the conversation." * (more > 0)


def _isolated(body: str, note: str, kind: str) -> str:
    foot = f'<p class="phi3flow-note">{note}</p>' if note else ""
    return f'<div class="phi3flow-text {kind}" dir="auto">{body}{foot}</div>'
