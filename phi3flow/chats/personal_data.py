"""Personal data that a pattern can find: which kinds a chat holds, never the data themselves.

Names, addresses and most identity numbers have no pattern: a chat without findings may hold personal data.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from phi3flow.chats.chat import Chat


class Kind(NamedTuple):
    """`holds` checks the check digits of a match, where its kind has them."""

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = bool


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


def personal_data_in(chat: Chat) -> frozenset[str]:
    """The names of the kinds that some message of the chat holds."""
    return frozenset(name for turn in chat.messages for name in _kinds(str(turn["content"])))


def _kinds(text: str) -> Iterator[str]:
    for kind in KINDS:
        rest = _without(kind, text)
        if rest != text:
            yield kind.name
        text = rest


def _without(kind: Kind, text: str) -> str:
    return kind.pattern.sub(lambda match: "\n" if kind.holds(match[0]) else match[0], text)
