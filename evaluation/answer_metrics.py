"""How one answer scores against its reference, and the means over many.

A leaf: flows include this very file, so it imports the standard library only and its name is unique
across all flows.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

READ_CHARS = 1000  # of an answer, when its opening is read


def one_of(words: str) -> str:
    """A pattern for any of these words or phrases, which commas separate; the longest that fits."""
    phrases = [" ".join(phrase.split()) for phrase in words.split(",")]
    return f"(?:{'|'.join(sorted(phrases, key=len, reverse=True))})"


# Patterns are of bounded width, so reading takes time linear in the text. They match `plain` text, which is
# in lower case and without accents.
_OPENING = re.compile(
    one_of(
        """
    sorry, sorry about that, apologies, my apologies, i apologize, i apologise, i'm afraid, i am afraid,
    i'm sorry, i am sorry, i'm very sorry, i am very sorry, i'm so sorry, i am so sorry, i'm really sorry,
    i'm truly sorry, i'm terribly sorry, forgive me, excuse me, unfortunately, regrettably, sadly, but,
    however, well, hmm, that, so, oh, ah, ok, okay, sure, honestly, answer, as an ai, as an ai model,
    as an ai assistant, as an ai language model, as a language model, hello, hello there, hi, hi there,
    hey, hey there, greetings, good morning, good afternoon, good evening, good day, thanks, thanks a lot,
    thanks for asking, thank you, thank you for asking, thank you for your question,
    thanks for your question, thank you for your message, thanks for your message, good question,
    great question, interesting question, that is a good question, that's a good question,
    that's a great question, what a good question,

    es tut mir leid, es tut mir sehr leid, tut mir leid, leider, entschuldigung, verzeihung, aber, dass,
    nun, ach, hallo, guten tag, guten morgen, guten abend, danke, vielen dank, danke fur die frage,
    gute frage,

    je suis desole, je suis desolee, desole, desolee, malheureusement, helas, mais, bonjour, bonsoir,
    salut, merci, merci pour votre question, bonne question, excusez-moi, pardon,

    lo siento, lo siento mucho, lamentablemente, desgraciadamente, por desgracia, disculpa, disculpe,
    perdona, perdon, pero, hola, buenos dias, buenas tardes, gracias, gracias por su pregunta,
    buena pregunta
    """
    )
    + "[ ,.;:!-]{1,4}"
)
_NEGATED = one_of("do not, don't, did not, didn't, cannot, can not, can't, could not, couldn't")
_FACTS = one_of("information, knowledge, data, details, answer, idea")
_END = r"(?=[.,!?;]|$)"
_ASKED = one_of("about, what, who, where, when, which, how, why, if, whether, but")
_ENGLISH = (
    rf"(?:i|we) (?:really |just |honestly |simply |still )?{_NEGATED} (?:actually "
    rf"|really )?(?:know\b|answer|say\b"
    rf"|tell\b|help with that|find|have (?:(?:that|this|any|the|enough|such|more"
    rf"|access to) ){{0,3}}{_FACTS})",
    rf"(?:i|we) have no (?:{_FACTS}|way of knowing)",
    rf"(?:i am|i'm) (?:really |just )?(?:unable to|unsure\b|not aware\b|not able to (?:answer|say|tell|help)"
    rf"|not (?:sure|certain)(?:{_END}| {_ASKED}\b))",
    r"(?:that|this|it) is (?:not something i know|unknown to me)",
    r"(?:this|that|the) (?:question )?(?:cannot|can't) be answered|cannot answer|no idea\b",
)
_ANSWERED = one_of("sagen, beantworten, antworten, wissen, antwort geben, auskunft geben")
_ABOUT = one_of("das, es, dir, ihnen, diese frage, die antwort, darauf, dazu, daruber, hierzu, leider, mir")
_GERMAN = (
    r"(?:das |es )?weiss ich (?:leider )?nicht",
    rf"(?:ich|wir) (?:weiss|wissen|kenne) (?:{_ABOUT} ){{0,3}}(?:nicht|nichts|keine)\b",
    rf"(?:(?:{_ABOUT} )?kann ich|ich kann) (?:{_ABOUT} ){{0,3}}(?:nicht|nichts|keine) {_ANSWERED}\b",
    rf"(?:(?:{_ABOUT} )?habe ich|ich habe"
    rf"|{_ABOUT} liegen mir) (?:{_ABOUT} ){{0,3}}keine? (?:informationen|information"
    r"|ahnung|kenntnis|angaben|daten|antwort)",
    rf"keine ahnung|(?:da )?(?:ich bin|bin ich) (?:mir )?(?:da |leider )?nicht sicher{_END}",
)
_FRENCH = (
    r"je (?:ne )?(?:le )?sais pas|(?:je l'|j')ignore\b|je n'en sais rien|aucune idee",
    r"je n'ai (?:pas|aucune) (?:d'|cette |l'|la |de |acces a cette |idee|information|donnee)",
    r"je ne (?:peux|suis) pas (?:en mesure de |capable d[e'] ?)?(?:vous |te |y )?(?:repondre|dire)",
    rf"je ne suis pas sure?{_END}",
)
_SPANISH = (
    rf"no (?:lo )?se(?:{_END}| (?:la respuesta|quien|donde|que|cual|cuando|como|eso|nada)\b)",
    r"no (?:conozco|tengo) (?:la |esa |ninguna |acceso a esa )?(?:respuesta|informacion|idea|datos)",
    rf"desconozco\b|no puedo (?:responder|contestar|decir(?:lo|te|le)?)\b|no estoy segur[oa]{_END}|ni idea\b",
)
_DECLINING = re.compile("|".join([*_ENGLISH, *_GERMAN, *_FRENCH, *_SPANISH]))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def score_answer(answer: str, reference: str) -> dict[str, float]:
    """Every metric of one answer, by name. The first two lie in 0..1, the third counts characters."""
    return {
        "exact_match": float(_collapsed(answer) == _collapsed(reference)),
        "token_f1": token_f1(answer, reference),
        "answer_chars": float(len(answer)),
    }


def mean_scores(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric over the rows, empty when there are none."""
    sums: Counter[str] = Counter()
    lines = 0
    for row in rows:
        sums.update(row)
        lines += 1
    return {name: total / lines for name, total in sums.items()}


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of the precision and recall of the answer's words, each counted as often as it occurs.

    Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", section 6.1:
    case, punctuation and English articles do not count. Two answers without any word agree.
    """
    given, wanted = Counter(_words(answer)), Counter(_words(reference))
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((given & wanted).values())
    return 2 * shared / (sum(given.values()) + sum(wanted.values()))  # total() needs Python 3.10


def declines(text: str) -> bool:
    """Whether the answer opens by saying that it does not know, after greetings, apologies and the like.

    In English, German, French and Spanish. Only the opening counts: "Paris, though I am not sure" is an
    answer.
    """
    opening = plain(text)
    return any(_DECLINING.match(opening, start) for start in starts(opening))


def starts(opening: str) -> list[int]:
    """Where the `plain` text begins: at 0, and after each greeting or apology that stands at its start."""
    found = [0]
    while skipped := _OPENING.match(opening, found[-1]):
        found.append(skipped.end())
    return found


def plain(text: str) -> str:
    """The first characters in lower case, without accents, Markdown's marks and typographic apostrophes."""
    letters = unicodedata.normalize("NFKD", text.lstrip()[:READ_CHARS].replace("\u2019", "'")).casefold()
    kept = "".join(
        c for c in letters if not unicodedata.combining(c) and c not in '*_#>"\u201c\u201d\u00bf\u00a1'
    )
    return " ".join(kept.split())


def _collapsed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(text: str) -> list[str]:
    kept = "".join(c for c in _collapsed(text).lower() if not unicodedata.category(c).startswith("P"))
    return _ARTICLES.sub(" ", kept).split()
