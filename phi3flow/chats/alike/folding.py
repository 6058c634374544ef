"""Text without what makes no difference to a question, to find copies of it that are spelled differently.

Folded are Unicode's compatibility forms (NFKC), letters of other scripts that look like Latin ones (Unicode
Technical Standard 39, by confusable-homoglyphs), invisible characters, case, punctuation, white space, and
greetings and sign-offs around it.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from phi3flow.chats.alike.near_duplicates import words_of

# Only scripts whose letters are mistaken for Latin ones: folding Arabic or Thai would join different letters.
_SCRIPTS = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CHEROKEE", "COPTIC"}
_COURTESIES = """
    hello, hello there, hi, hi there, hi all, hi team, hey, hey there, dear team, dear all, dear support,
    dear sir or madam, good morning, good afternoon, good evening, good day, greetings, excuse me, please,
    please help, thanks, thanks a lot, many thanks, thanks so much, thanks in advance, thank you,
    thank you very much, thank you so much, thank you in advance, thx, cheers, regards, kind regards,
    best regards, best wishes, warm regards, sincerely, yours sincerely, have a nice day, bye, goodbye,
    hallo, guten tag, guten morgen, guten abend, moin, servus, bitte, danke, danke schon, danke schön,
    vielen dank, besten dank, danke im voraus, vielen dank im voraus, mit freundlichen grüßen, viele grüße,
    liebe grüße, beste grüße, mfg, tschüss, sehr geehrte damen und herren,
    bonjour, bonsoir, salut, merci, merci beaucoup, merci d avance, s il vous plaît, s il te plaît,
    cordialement, bien cordialement, au revoir, madame monsieur,
    hola, buenos días, buenas tardes, buenas noches, por favor, gracias, muchas gracias, gracias de antemano,
    saludos, un saludo, saludos cordiales, estimados señores, adiós
"""


def folded_words(text: str) -> list[str]:
    """The words that are left; where nothing else stands there, punctuation or the greeting itself."""
    words = _plain_words(text)
    start, end, longest = 0, len(words), max(map(len, _courtesies()))
    while start < end and (found := _courtesy(words[start : min(end, start + longest)], at_end=False)):
        start += found
    while start < end and (found := _courtesy(words[max(start, end - longest) : end], at_end=True)):
        end -= found
    return words[start:end] or words


def _plain_words(text: str) -> list[str]:
    if not text.isascii():
        composed = unicodedata.normalize("NFKC", text)
        text = "".join(_latin(c) for c in composed if unicodedata.category(c) != "Cf")
    words = words_of(text)
    return [word for word in words if word[0].isalnum()] or words


@lru_cache(maxsize=4096)
def _latin(character: str) -> str:
    """The Latin letter that `character` looks like, or itself."""
    if character.isascii() or not character.isalpha():
        return character
    from confusable_homoglyphs import categories, confusables

    if categories.alias(character) not in _SCRIPTS:
        return character
    found = confusables.is_confusable(character, greedy=True) or [{"homoglyphs": []}]
    alike = sorted(one["c"] for one in found[0]["homoglyphs"] if one["c"].isascii() and one["c"].isalpha())
    return alike[0] if alike else character


def _courtesy(words: Sequence[str], *, at_end: bool) -> int:
    """How many words a greeting or sign-off takes at the start, or at the end; 0 for none."""
    known = _courtesies()
    for length in range(len(words), 0, -1):
        if tuple(words[-length:] if at_end else words[:length]) in known:
            return length
    return 0


@lru_cache(maxsize=1)
def _courtesies() -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(_plain_words(phrase)) for phrase in _COURTESIES.split(","))
