"""GGUF: for llama.cpp, Ollama and LM Studio."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.export.exporter import Judged, Source, Stored, require_packages
from deploy.export.gguf.file import require_known, write_gguf
from deploy.export.gguf.llama_server import serving
from deploy.export.gguf.ollama import modelfile
from deploy.export.gguf.vocabulary import strips_right, tokenizer_kind
from deploy.export.model_files import copy_files
from deploy.export.turns import turns_of
from phi3flow.chats.system_prompt import recorded_system_prompt
from phi3flow.core.errors import BadInput
from phi3flow.core.files import write_text
from phi3flow.phi3_contract import Endpoint

MODELFILE = "Modelfile"


class Gguf:
    """The folder holds one GGUF file, a Modelfile, and the configuration that says its context."""

    name = "gguf"
    weights: Mapping[str, Judged] = {
        "f16": Judged.BY_ROWS_OR_ANSWERS,
        "q8_0": Judged.BY_ROWS,
        "q4_k_m": Judged.BY_ROWS,
    }

    def require(self, model: Path) -> None:
        from training.models.loading import load_config

        require_packages(("gguf", "xllamacpp"), "gguf")
        require_known(model, load_config(str(model)))
        tokenizer_kind(model)

    def convert(self, source: Source, work: Path, weights: str) -> Stored:
        from training.models.loading import served_context

        file = work / f"model-{weights}.gguf"
        write_gguf(source.folder, file, source.config, source.tokenizer, weights)
        text = modelfile(
            file.name,
            source.tokenizer,
            turns_of(source.tokenizer),
            context=served_context(source.config),
            system=recorded_system_prompt(source.folder),
            swallowing=strips_right(source.folder, source.tokenizer),
        )
        write_text(work / MODELFILE, text)
        copy_files(source.folder, work, ("config.json",))
        return Stored(weights)

    def owns(self, folder: Path) -> bool:
        return any(folder.glob("*.gguf"))

    @contextmanager
    def serving(self, folder: Path) -> Iterator[Endpoint]:
        from training.models.loading import load_config, served_context

        files = sorted(folder.glob("*.gguf"))
        if len(files) != 1:
            raise BadInput(f"{folder}: {len(files)} GGUF files", hint="one in a folder")
        require_packages(("xllamacpp",), "gguf")
        with serving(files[0], served_context(load_config(str(folder)))) as endpoint:
            yield endpoint

    def next_step(self, folder: Path) -> str:
        return f"ollama create {folder.name} -f {folder / MODELFILE}"
