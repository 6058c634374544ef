"""Personal data that a pattern can find: counted, never shown, or replaced by the name of their kind.

Most names, addresses and identity numbers have no pattern: a chat without findings may hold personal data.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from phi3flow.chats.chat import Chat, Message, calls_text


class Kind(NamedTuple):
    """`holds` checks the check digits of a match, where its kind has them.

    A group `data` of the pattern is what counts of the match, if there is one.
    """

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = bool

    @property
    def placeholder(self) -> str:
        """`[e-mail address]`."""
        return f"[{re.sub('(?<=ss)es$|s$', '', self.name)}]"


def _is_iban(text: str) -> bool:
    """ISO 13616: the first four characters to the end, letters as 10 to 35; modulo 97 that is 1."""
    characters = text.replace(" ", "")
    moved = characters[4:] + characters[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _is_card(text: str) -> bool:
    """Luhn's check digit (ISO/IEC 7812-1); not one digit again and again."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_address(text: str) -> bool:
    """Not of a domain that RFC 2606 reserves for examples and tests."""
    domain = text.rpartition("@")[2].casefold()
    reserved = {"example.com", "example.org", "example.net"}
    return domain not in reserved and not domain.endswith((".example", ".invalid", ".test"))


# In this order: what one kind has taken is not looked at for the next. Every repetition is bounded, so that
# the time grows with the length of the text only.
KINDS = (
    Kind("IBANs", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban),
    Kind("card numbers", re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"), _is_card),
    Kind(
        "e-mail addresses",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"),
        _is_address,
    ),
    Kind("US social security numbers", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")),
    Kind(
        "phone numbers",
        re.compile(
            r"(?<![\w+.])(?<!\d[ -])(?:"
            r"(?:\+|00)[1-9]\d{0,2}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){5,12}"  # with a country code
            r"|\(?0\d{2,5}\)?[ /-]{1,3}\d(?:[ -]?\d){3,9}"  # with an area code that begins with 0
            r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}"  # North America
            r")(?!\w)(?![ ./-]\d)"
        ),
    ),
)

# Replaced only, and not counted in people's own rows: keys are not personal, and a name that follows a title,
# an introduction or a farewell is a guess.
_KEYS = Kind(
    "keys",
    re.compile(
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]{0,8000}-----END [A-Z ]{0,30}PRIVATE KEY-----"
        r"|(?<![\w-])(?:sk-[\w-]{16,200}|(?:gh[pousr]|github_pat|hf|glpat|xox[abprs])[_-][\w-]{16,200}"
        r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,60}|eyJ[\w-]{10,999}\.[\w-]{10,999}\.[\w-]{10,999}"
        r"|[0-9a-fA-F]{32,128})(?![\w-])"
        r"|(?i:\b(?:api|access|secret)[ _-]?(?:key|token)|\bpassword|\bpasswort|\bpasswd)"
        r"(?i: is| ist)?[\"']?[ ]{0,3}[:=]?[ ]{0,3}[\"']?(?P<data>(?=[^\s\"',;]{0,199}\d)[^\s\"',;]{6,200})"
    ),
)
_WORD = r"[A-Z\u00c0-\u00d6\u00d8-\u00de][\w'\u2019-]{1,30}"
_NAME = rf"(?P<data>{_WORD}(?: {_WORD}){{0,2}})"
_NAMES = (
    Kind(
        "names",
        re.compile(
            r"(?:(?i:\bmy name is|\bmy name's|\bi am called|\bich hei(?:\u00df|ss)e|\bmein name ist"
            r"|\bje m['\u2019]appelle|\bme llamo|\bmi nombre es)"
            rf"|\b(?:Mr|Mrs|Ms|Dr|Prof|Herrn?|Frau|Mme|Sra?)\.?) {_NAME}"
        ),
    ),
    Kind(
        "names",
        re.compile(
            r"(?i:\b(?:regards|sincerely|wishes|thanks|gr(?:\u00fc|ue)(?:\u00df|ss)en?|cordialement|saludos)),?"
            rf"[ ]{{0,2}}\n{{1,2}}{_NAME}(?=[ ]{{0,3}}(?:\n|$))"
        ),
    ),
)
REPLACED = (_KEYS, *KINDS, *_NAMES)
_PART = 3  # letters from which a part of a name is replaced on its own


class Replaced(NamedTuple):
    """Texts with placeholders, and how much of each kind was replaced."""

    texts: list[str]
    counts: Counter[str]


def without_personal_data(texts: Sequence[str]) -> Replaced:
    """The texts of one conversation; a name that one of them gives away is replaced in all of them."""
    counts: Counter[str] = Counter()
    given: dict[str, None] = {}

    def placed(kind: Kind, text: str) -> str:
        def put(match: re.Match[str]) -> str:
            if not kind.holds(match[0]):
                return match[0]
            counts[kind.name] += 1
            data = match.groupdict().get("data") or match[0]
            if kind in _NAMES:
                given.update(dict.fromkeys(part for part in data.split() if len(part) >= _PART))
            before, _, after = match[0].rpartition(data)
            return f"{before}{kind.placeholder}{after}"

        return kind.pattern.sub(put, text)

    changed = list(texts)
    for kind in REPLACED:
        changed = [placed(kind, text) for text in changed]
    for part in given:
        again = re.compile(rf"(?<!\w){re.escape(part)}(?!\w)")
        for i, text in enumerate(changed):
            changed[i], found = again.subn(_NAMES[0].placeholder, text)
            counts["names"] += found
    return Replaced(changed, +counts)


def personal_data_in(chat: Chat) -> frozenset[str]:
    """The names of the kinds that some message of the chat holds, or some call in it."""
    texts = (text for turn in chat.messages for text in _texts(turn))
    return frozenset(name for text in texts for name in _kinds(text))


def _texts(turn: Message) -> Iterator[str]:
    yield str(turn["content"])
    if "tool_calls" in turn:
        yield calls_text(turn["tool_calls"])


def _kinds(text: str) -> Iterator[str]:
    for kind in KINDS:
        rest = _without(kind, text)
        if rest != text:
            yield kind.name
        text = rest


def _without(kind: Kind, text: str) -> str:
    return kind.pattern.sub(lambda match: "\n" if kind.holds(match[0]) else match[0], text)
