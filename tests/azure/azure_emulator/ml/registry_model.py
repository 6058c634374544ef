"""`registry_model.py FOLDER`: a tiny random Phi-3, laid out as the catalog's MLflow models are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "support"))

from tiny import lively_model, new_tokenizer


def main() -> None:
    folder = Path(sys.argv[1])
    partial = folder.with_name(f".{folder.name}")
    tokenizer = new_tokenizer()
    lively_model(tokenizer).save_pretrained(partial / "model")
    tokenizer.save_pretrained(partial / "components" / "tokenizer")
    (partial / "MLmodel").write_text("flavors:\n  transformers:\n    model_binary: model\n")
    partial.rename(folder)


if __name__ == "__main__":
    main()
