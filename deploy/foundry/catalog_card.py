"""`python -m deploy.foundry.catalog_card TUNED BASE VALIDATION MODEL_OUT BASE_OUT CARD_OUT`: in a job.

TUNED and BASE are MLflow models of the catalog, which keep weights and tokenizer in folders of their own.
Both answer the fixed prompts; MODEL_OUT, BASE_OUT and CARD_OUT become what a training job of ours leaves.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.azure.job_outputs import write_card
from phi3flow.chats.rows import load_chats
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import Artifact, write_manifest
from training.models.loading import load_model, load_tokenizer
from training.models.probes import Answer, answer_greedily, most_tokens, probe_prompts, probe_rows
from training.tracking.mlflow_run import save_mlflow_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTS = "*.safetensors"
Prompts = dict[str, list[dict[str, str]]]


def main() -> None:
    tuned, base, validation, model_out, base_out, card_out = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        model = model_folder(tuned, Path(scratch) / "tuned")
        model_folder(base, base_out)
        write_probes(model, base_out, validation)
        write_manifest(model, "model", inputs=[], outputs=[Artifact.of("model", model)])
        write_card(model, card_out)
        save_mlflow_model(model, model_out, azure=True)


def model_folder(mlflow_model: Path, target: Path) -> Path:
    """Weights, configuration and tokenizer in one folder, wherever below the MLflow model they lie.

    Raises Phi3flowError where one of them is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for pattern in ("tokenizer.json", "config.json", WEIGHTS):  # where names clash, the weights' folder wins
        found = sorted(mlflow_model.rglob(pattern))
        if not found:
            raise Phi3flowError(f"the catalog's model has no {pattern}", "its MLmodel file says what it has")
        for path in found[0].parent.iterdir():
            if path.is_file():
                shutil.copyfile(path, target / path.name)
    return target


def write_probes(tuned: Path, base: Path, validation: Path) -> None:
    """`probes.jsonl` into `tuned`. Raises Phi3flowError where tuning changed no answer."""
    import torch

    tokenizer = load_tokenizer(str(tuned))
    prompts = probe_prompts(tokenizer, load_chats(validation))
    before, _ = _answers(base, tokenizer, prompts)
    after, limit = _answers(tuned, tokenizer, prompts)
    if all(after[name].text == before[name].text for name in after):
        raise Phi3flowError(
            "fine-tuning changed nothing: every probe is answered as before", "a higher --learning-rate"
        )
    write_jsonl(
        tuned / "probes.jsonl", probe_rows(tokenizer, prompts, limit, after, before, dtype=torch.float32)
    )


def _answers(
    folder: Path, tokenizer: "PreTrainedTokenizerBase", prompts: Prompts
) -> tuple[dict[str, Answer], int]:
    """One model in memory at a time."""
    import torch

    model = load_model(str(folder))
    if torch.cuda.is_available():
        model = model.to("cuda")
    return answer_greedily(model, tokenizer, prompts), most_tokens(model)


if __name__ == "__main__":
    main()
