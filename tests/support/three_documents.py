"""Three documents such as libraries keep them: a lighthouse's log, a mill's ledger, a botanist's letters.

Every sentence holds one dated fact, which the scripted teacher asks about. No two sentences are alike.
"""

import random
from datetime import date, timedelta
from pathlib import Path

LOG = (
    "On {day} the keeper {name} trimmed the lamp {number} times and saw {thing} pass below {place}.",
    "The wind of {day} came from {place}, and {name} counted {number} panes that the salt had blinded.",
    "{name} wrote on {day} that {thing} had been washed ashore near {place}, {number} yards from the steps.",
)
LEDGER = (
    "For {day} the ledger shows {number} sacks of rye, brought from {place} by {name} against {thing}.",
    "On {day} the great wheel stood still for {number} hours, because {name} had found {thing} in the race.",
    "{name} of {place} settled an old debt on {day} with {number} shillings and {thing}.",
)
LETTERS = (
    "Writing on {day}, {name} describes {number} stems of a gentian that nobody had seen above {place}.",
    "The parcel of {day} held {thing} and {number} pressed leaves, which {name} had gathered at {place}.",
    "Near {place}, {name} noted on {day}, the moss covered {number} stones and even {thing}.",
)
NAMES = ("Ada Farrow", "Tobias Lunn", "Esther Quill", "Jonas Marl", "Ruth Pennick", "Silas Brandreth")
PLACES = ("Gull Point", "the Harrow ford", "Saint Bride", "Cold Ash", "the Nether quay", "Penrith")
THINGS = ("a brig under torn sails", "two casks of tallow", "a copper kettle", "an oak rudder", "a grey mare")
TEXTS = {"log": LOG, "ledger": LEDGER, "letters": LETTERS}


def text_of(name: str, sentences: int = 120) -> str:
    chance, day, lines = random.Random(name), date(1871, 1, 3), []
    for i in range(sentences):
        day += timedelta(days=chance.randint(1, 3))
        lines.append(
            chance.choice(TEXTS[name]).format(
                day=f"{day.day} {day:%B %Y}",
                name=chance.choice(NAMES),
                place=chance.choice(PLACES),
                thing=chance.choice(THINGS),
                number=chance.randint(2, 90),
            )
        )
        lines[-1] += "\n\n" if i % 5 == 4 else " "
    return "".join(lines).replace(" \n", "\n").strip() + "\n"


def write_documents(folder: Path) -> dict[str, Path]:
    """The log as plain text, the ledger as a web page, the letters as Markdown."""
    folder.mkdir()
    paragraphs = "".join(f"<p>{one}</p>" for one in text_of("ledger").split("\n\n"))
    page = f"<html><head><script>no()</script></head><body><nav>Home</nav>{paragraphs}</body></html>"
    texts = {
        "log.txt": text_of("log"),
        "ledger.html": page,
        "letters.md": "# Letters\n\n" + text_of("letters"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {Path(name).stem: folder / name for name in texts}
