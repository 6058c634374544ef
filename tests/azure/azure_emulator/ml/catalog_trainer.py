"""`catalog_trainer.py MODEL TRAIN VALIDATION OUT LEARNING_RATE`: our own training.

A tiny model needs so many steps to learn to end its answers; one that does not is not let through by verify.
"""

import shutil
import sys
from pathlib import Path

from deploy.foundry.catalog_card import model_folder
from training.finetune import finetune
from training.recipes.recipe import load_recipe

RECIPE = "steps = 150\nbatch_size = 4\nlearning_rate = {rate}\nmax_length = 256\n"


def main() -> None:
    model, train, validation, out = map(Path, sys.argv[1:5])
    work = Path("work")
    (work / "data").mkdir(parents=True)
    shutil.copyfile(train, work / "data" / "train.jsonl")
    shutil.copyfile(validation, work / "data" / "val.jsonl")
    (work / "recipe.toml").write_text(RECIPE.format(rate=sys.argv[5]))
    base = model_folder(model, work / "base")
    recipe = load_recipe(str(work / "recipe.toml"))
    made = finetune(work / "data", recipe, work / "tuned", model=str(base)).folder
    tokenizer = out / "components" / "tokenizer"
    tokenizer.mkdir(parents=True)
    (out / "model").mkdir()
    for path in made.iterdir():
        if path.is_file() and path.name != "probes.jsonl":
            shutil.copyfile(path, (tokenizer if "token" in path.name else out / "model") / path.name)


if __name__ == "__main__":
    main()
