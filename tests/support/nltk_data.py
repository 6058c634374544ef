"""Files in the shape of NLTK's data, for tests of what happens where that data is installed.

Nothing in them is learned from text: sentences end at every full stop, unicode's classes separate what is not
ASCII, and METEOR knows no synonyms.
"""

import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path

from evaluation.metrics.grader_child import NLTK_DATA

_PUNKT = ("abbrev_types.txt", "collocations.tab", "sent_starters.txt", "ortho_context.tab")
_PARTS_OF_SPEECH = ("adj", "adv", "noun", "verb")


def write_nltk_data(folder: Path) -> None:
    """Write an archive for each of `NLTK_DATA` below `folder`."""
    words = [f"{kind}.{part}" for kind in ("index", "data") for part in _PARTS_OF_SPEECH]
    words += ["lexnames", "index.sense", *(f"{part}.exc" for part in _PARTS_OF_SPEECH)]
    contents: dict[str, Mapping[str, str]] = {
        "tokenizers/punkt": {},
        "tokenizers/punkt_tab": {f"english/{name}": "" for name in _PUNKT},
        "misc/perluniprops": {
            "Number.txt": _characters("N"),
            "Punctuation.txt": _characters("P"),
            "Symbol.txt": _characters("S", "P"),  # what the examples in nltk.tokenize.nist split at
        },
        "corpora/wordnet": dict.fromkeys(words, ""),
    }
    for name in NLTK_DATA:
        path = folder / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for file, text in contents[name].items():
                archive.writestr(f"{path.stem}/{file}", text)


def _characters(*classes: str) -> str:
    """Every character whose unicode category begins with one of these letters."""
    return "".join(c for c in map(chr, range(0x110000)) if unicodedata.category(c).startswith(classes))
