"""Text that a model or a stranger wrote, as HTML that can do nothing but be read.

Markdown gives headings, lists, tables, emphasis and code. Raw HTML, links and images stay the text they are:
nothing is fetched and nothing can be clicked. Streamlit cleans the result once more (DOMPurify).
"""

import html
import re
from functools import lru_cache

from markdown_it import MarkdownIt

MARKDOWN_CHARACTERS, TABLE_BARS = 10_000, 1_000  # beyond either, text is shown as it is: Markdown has bombs
SHOWN_CHARACTERS = 40_000
GROWTH = 20  # HTML so many times longer than its text is a bomb too: a table with thousands of empty cells
# Invisible controls that make following text run backwards, out of an answer too: shown by their names.
# Letters of Arabic and Hebrew run right to left by themselves.
BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
NOT_RENDERED = ["link", "image", "autolink", "reference", "html_block", "html_inline"]
_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable(NOT_RENDERED)
# The name of a code block's language would become a class of the page.
_markdown.add_render_rule(
    "fence", lambda _, tokens, index, *__: f"<pre><code>{html.escape(tokens[index].content)}</code></pre>\n"
)


@lru_cache(maxsize=256)
def answer_html(text: str) -> str:
    """A model's answer: Markdown without anything live, isolated from the text around it."""
    shown, note = _bounded(_visible(text))
    if len(shown) <= MARKDOWN_CHARACTERS and shown.count("|") <= TABLE_BARS:
        rendered = _markdown.render(shown)
        if len(rendered) <= GROWTH * len(shown) + 1000:
            return _isolated(rendered, note, "phi3flow-answer")
    return plain_html(text, "phi3flow-answer")


def plain_html(text: str, kind: str = "phi3flow-question") -> str:
    """Text as it is, line breaks and all."""
    shown, note = _bounded(_visible(text))
    return _isolated(f'<div class="phi3flow-plain">{html.escape(shown)}</div>', note, kind)


def label(text: str) -> str:
    """Text for a button's label, which Streamlit reads as Markdown: a title must not become an image."""
    return PUNCTUATION.sub(r"\\\1", _visible(text).replace("\n", " "))


def _visible(text: str) -> str:
    named = BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return named.replace("\0", "\ufffd")


def _bounded(text: str) -> tuple[str, str]:
    if len(text) <= SHOWN_CHARACTERS:
        return text, ""
    return text[
        :SHOWN_CHARACTERS
    ], f"{len(text) - SHOWN_CHARACTERS} more characters: export the conversation."


def _isolated(body: str, note: str, kind: str) -> str:
    foot = f'<p class="phi3flow-note">{note}</p>' if note else ""
    return f'<div class="phi3flow-text {kind}" dir="auto">{body}{foot}</div>'
