"""What `prepare` already knows about later steps: the recipe that suits the base, and what will not work."""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from phi3flow.app.run_folder import base_command, recipe_for, train_command
from phi3flow.chats.alike.asked_alike import asked_alike
from phi3flow.chats.alike.same_questions import question_groups
from phi3flow.chats.chat import Chat
from phi3flow.chats.personal_data import KINDS, personal_data_in
from training.recipes.recipe import load_recipe

CHARACTERS_PER_TOKEN = 4  # of English text, where no tokenizer is at hand
NAMED = 3  # rows whose places are named

Splits = Mapping[str, Sequence[Chat]]


@dataclass(frozen=True)
class Start:
    """The model that training will start from: the one that the owner names, or what lies in `base`.

    `base` is the place of the run's base model, where none may be yet; `named` is a folder or a hub id.
    """

    base: Path
    named: str | None

    @property
    def recipe(self) -> str:
        """The recipe that suits it. Raises BadInput for a model that cannot be found."""
        from training.models.loading import load_config, weights_folder

        if self.named and self._is_on_the_hub:
            load_config(self.named)
            return recipe_for(weights_folder(self.named, None))
        return recipe_for(self._folder)

    def token_counts(self, splits: Splits) -> list[int] | None:
        """Of the chats of all splits; None where no model or, unless it is named, no transformers is there.

        Raises BadInput for a model without a tokenizer, and for a chat that its template does not take whole.
        """
        from training.data.encode import require_rendered
        from training.data.lengths import token_counts
        from training.models.loading import load_tokenizer

        if not self.named and not (self._exists and find_spec("transformers")):
            return None
        tokenizer = load_tokenizer(self.named or str(self.base))
        chats = [chat for split in splits.values() for chat in split]
        require_rendered(tokenizer, chats)
        return token_counts(tokenizer, chats)

    def next_commands(self, data: Path) -> list[str]:
        """Lines to paste; the base model of the run is made once."""
        train = train_command(data, self._folder, data.parent / "tuned", self.recipe)
        if self._exists:
            return [f"next: {train}"]
        download = f"hf download {self.named} --local-dir {shlex.quote(str(self.base))}"
        return [f"next: {download if self.named else base_command(self.base)}", f"then: {train}"]

    @property
    def _folder(self) -> Path:
        """Where the model lies, or will lie."""
        return self.base if self.named is None or self._is_on_the_hub else Path(self.named)

    @property
    def _exists(self) -> bool:
        return (self._folder / "config.json").is_file()

    @property
    def _is_on_the_hub(self) -> bool:
        return self.named is not None and not Path(self.named).is_dir()


def warnings(splits: Splits, recipe: str, sizes: Sequence[int] | None) -> Iterator[str]:
    """Sentences about what will not work as the owner may expect. Personal data are counted, never shown.

    `sizes` are the chats' lengths in tokens, None where they were not counted.
    """
    learned, test = [*splits["train"], *splits["val"]], splits["test"]
    yield from _too_few(test)
    yield from _too_long([*learned, *test], recipe, sizes)
    yield from _asked_alike(learned, test)
    yield from _personal_data([*learned, *test])


def _too_few(test: Sequence[Chat]) -> Iterator[str]:
    from evaluation.answer_metrics import declines
    from evaluation.verdict.gate import load_gate
    from training.data.split import TEST_SHARE

    needed = load_gate().min_rows
    questions = len(set(question_groups(chat.prompt for chat in test if not declines(chat.reference))))
    if questions < needed:
        yield (
            f"test has {questions} different questions that have an answer, and a promotion takes {needed}: "
            f"add chats, about {math.ceil(needed / TEST_SHARE)} in all, or bring a test set with --test FILE"
        )


def _too_long(chats: Sequence[Chat], recipe: str, sizes: Sequence[int] | None) -> Iterator[str]:
    chosen = load_recipe(recipe)
    counted = "" if sizes else " (guessed from their characters; --model counts them)"
    longer = sum(size > chosen.max_length for size in sizes or map(_guessed_tokens, chats))
    if longer:
        yield (
            f"{longer:,} of {len(chats):,} chats are longer than the {chosen.max_length:,} tokens of recipe "
            f"{recipe}{counted}, which has long_chats = "
            f'"{chosen.long_chats_rule}" (docs/training.md, Long chats)'
        )


def _guessed_tokens(chat: Chat) -> int:
    return sum(len(turn["content"]) for turn in chat.messages) // CHARACTERS_PER_TOKEN


def _asked_alike(learned: Sequence[Chat], test: Sequence[Chat]) -> Iterator[str]:
    found = asked_alike(learned, test)
    if found.alike:
        yield (
            f"{len(found.alike):,} of {found.of:,} test questions are asked in train or val in nearly the "
            f"same words ({_places(test[i] for i in found.alike)}): the comparison will show how well they "
            "were learned, and less how new questions are answered; --test FILE takes chats of another time"
        )


def _personal_data(chats: Sequence[Chat]) -> Iterator[str]:
    found = [(chat, personal_data_in(chat)) for chat in chats]
    rows = Counter(name for _, names in found for name in names)
    if rows:
        listed = ", ".join(f"{kind.name} in {rows[kind.name]:,} rows" for kind in KINDS if kind.name in rows)
        places = _places(chat for chat, names in found if names)
        yield f"personal data by pattern: {listed} ({places}): a model may repeat what it has learned"


def _places(chats: Iterator[Chat]) -> str:
    """Where the owner finds the first few."""
    origins = [chat.origin for chat in chats if chat.origin]
    return ", ".join(origins[:NAMED]) + (", ..." if len(origins) > NAMED else "")
