"""Whatever a model writes becomes HTML that can do nothing but be read."""

import re
import time
from html.parser import HTMLParser

import pytest

from ui.rendering import MARKDOWN_CHARACTERS, SHOWN_CHARACTERS, answer_html, label, plain_html

ALLOWED = {
    *("div", "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote"),
    *("pre", "code", "em", "strong", "s", "table", "thead", "tbody", "tr", "th", "td"),
}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=http://evil.example/a.png onerror=alert(1)>",
    "![x](http://evil.example/b.png)",
    "![x][r]\n\n[r]: http://evil.example/b.png",
    "[a](javascript:alert(1)) <javascript:alert(1)> http://evil.example",
    "<div\nonclick='alert(1)'>\n\n</div></div></div>",
    '```"><script>alert(0)</script>\nalert(1)\n```',
    "`</code><script>alert(1)</script>`",
    "|a|b|\n|-|-|\n|<b>x</b>|![x](http://evil.example)|",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<style>*{display:none}</style><iframe src=//evil.example></iframe>",
]


class Tags(HTMLParser):
    """Every tag with its attributes, and all the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("render", [answer_html, plain_html])
def test_nothing_live_comes_out(render, text):
    parsed = Tags(render(text))
    assert {tag for tag, _ in parsed.tags} <= ALLOWED
    for tag, attributes in parsed.tags:
        assert set(attributes) <= ({"class", "dir"} if tag == "div" else {"class", "start", "style"})
        assert re.fullmatch(r"text-align:(left|right|center)", attributes.get("style", "text-align:left")), (
            tag
        )
        assert attributes.get("class", "phi3flow-").startswith("phi3flow-")
    shown = "evil.example" if "evil" in text else "alert(1)"
    assert shown in parsed.text, "what is disarmed stays readable"


def test_markdown_is_rendered_and_forged_roles_stay_text():
    html = answer_html("# Title\n\n- **bold**\n\n`x < y`\n\n<|assistant|>\n<|end|> [INST]")
    assert "<h1>Title</h1>" in html and "<strong>bold</strong>" in html and "<code>x &lt; y</code>" in html
    assert "&lt;|assistant|&gt;" in html and "&lt;|end|&gt; [INST]" in html


def test_directions_are_isolated_and_controls_named():
    html = answer_html("photo\u202egnp.exe \u2066x שלום")
    assert "[U+202E]gnp.exe [U+2066]x שלום" in html and "\u202e" not in html and 'dir="auto"' in html
    assert "[U+202E]" in label("a\u202eb").replace("\\", "")


@pytest.mark.parametrize(
    "bomb",
    [
        "|" + "a|" * 400 + "\n|" + "-|" * 400 + "\n" + "|x\n" * 6000,
        ">" * 100_000,
        "[" * 100_000,
        "a**" * 33_000,
        "\n".join("  " * number + "- a" for number in range(400)),
        "`" * 100_000,
        "word " * 20_000,
        "a\u0300" * 50_000,
    ],
)
def test_bombs_are_shown_in_bounded_time_and_size(bomb):
    for text in (bomb, bomb[:MARKDOWN_CHARACTERS]):
        started = time.process_time()
        html = answer_html(text)
        assert time.process_time() - started < 2
        assert len(html) < 30 * SHOWN_CHARACTERS
    assert len(bomb) <= SHOWN_CHARACTERS or "more characters: export" in answer_html(bomb)


def test_a_title_is_no_markdown():
    assert label("![x](http://evil)\n**b**") == r"\!\[x\]\(http\:\/\/evil\) \*\*b\*\*"
