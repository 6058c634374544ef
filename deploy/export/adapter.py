"""The adapters of a LoRA run, as PEFT keeps them, for those who push, stack or serve them."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.export.exporter import Judged, Source, Stored, require_packages
from deploy.export.model_files import TOKENIZER, copy_files
from deploy.scoring.loopback import on_loopback
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json
from phi3flow.phi3_contract import Endpoint
from training.loop.finish import ADAPTER

CONFIGURATION = "adapter_config.json"


class Adapter:
    """The folder names its base model; the check loads that and merges the adapters into it."""

    name = "adapter"
    weights: Mapping[str, Judged] = {"kept": Judged.BY_ANSWERS}

    def require(self, model: Path) -> None:
        require_packages(("peft",), "train")
        if not self.owns(model / ADAPTER):
            raise BadInput(
                f"{model}: no {ADAPTER} folder: no adapters were trained for it",
                hint="phi3flow train with a recipe that has [lora], such as phi3.5-mini-lora, keeps them",
            )

    def convert(self, source: Source, work: Path, weights: str) -> Stored:
        for file in (source.folder / ADAPTER).iterdir():
            shutil.copy2(file, work / file.name)
        copy_files(source.folder, work, TOKENIZER)
        return Stored(weights)

    def owns(self, folder: Path) -> bool:
        return (folder / CONFIGURATION).is_file()

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Endpoint]:
        from peft import PeftModel

        from deploy.scoring.engines.transformers_engine import TransformersEngine
        from training.models.loading import load_model, load_tokenizer

        base = str(read_json(folder / CONFIGURATION)["base_model_name_or_path"])
        model: Any = PeftModel.from_pretrained(load_model(base), folder).merge_and_unload()
        with on_loopback(TransformersEngine(model, load_tokenizer(str(folder))), folder.name) as endpoint:
            yield endpoint

    def next_step(self, folder: Path) -> str:
        return f"hf upload ORGANISATION/NAME {folder}"
