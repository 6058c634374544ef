"""Which rows ask what a test question asks: nothing is learned from those."""

from collections.abc import Iterator, Sequence

from phi3flow.chats.alike.same_questions import question_text, text_groups
from phi3flow.chats.chat import Chat, Message


def tested(asked: Sequence[Sequence[str]], test: Sequence[Chat]) -> Iterator[int | None]:
    """For each row the place in `test` of a chat that asks one of its texts, by the folding of the split.

    `asked` holds what `texts_asked` gave for each row.
    """
    of_test = [question_text(chat.prompt) for chat in test]
    groups = iter(text_groups([*of_test, *(text for texts in asked for text in texts)], near=True))
    places: dict[int, int] = {}
    for place, _ in enumerate(of_test):
        places.setdefault(int(next(groups)), place)
    for texts in asked:
        found = [places.get(int(next(groups))) for _ in texts]
        yield next((place for place in found if place is not None), None)


def texts_asked(prompt: Sequence[Message]) -> tuple[str, str]:
    """The whole prompt, and its last question alone."""
    return question_text(prompt), question_text([turn for turn in prompt if turn["role"] == "user"][-1:])
