"""OpenVINO, for the openvino engine: fp32, or int8 and int4 by `quantise`."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.export.export import Exported, export
from deploy.export.exporter import Judged, Source, Stored
from deploy.export.model_files import TOKENIZER, copied, copy_files
from deploy.export.quantise import Bits, Example, quantise
from deploy.scoring.engines.openvino_worker import silence_openvino
from deploy.scoring.load import OPENVINO_FILE, load
from deploy.scoring.loopback import on_loopback
from phi3flow.core.errors import Phi3flowError, translating
from phi3flow.phi3_contract import Endpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class OpenVino:
    """The converter writes the configuration itself."""

    name = "openvino"
    weights: Mapping[str, Judged] = {
        "fp32": Judged.BY_ANSWERS,
        "int8": Judged.BY_TOKENS,
        "int4": Judged.BY_TOKENS,
    }

    def require(self, model: Path) -> None:
        silence_openvino()
        with translating({ImportError: _not_installed}):
            import optimum.intel  # noqa: F401
        copied(model, TOKENIZER)

    def convert(self, source: Source, work: Path, weights: str) -> Stored:
        _convert(source.folder, work)
        copy_files(source.folder, work, TOKENIZER)
        if weights == "fp32":
            return Stored("fp32")
        widths = [source.config.hidden_size, source.config.intermediate_size]
        examples = [_example(source.tokenizer, row) for row in source.probes]
        bits: Bits = "int4" if weights == "int4" else "int8"
        return quantise(work, widths, examples, bits)

    def owns(self, folder: Path) -> bool:
        return (folder / OPENVINO_FILE).is_file()

    def serving(self, folder: Path) -> AbstractContextManager[Endpoint]:
        return on_loopback(load(folder, lambda: None), folder.name)

    def next_step(self, folder: Path) -> str:
        return f"phi3flow serve {folder}"


def export_openvino(model: Path, out: Path, *, bits: Bits | None = None) -> Exported:
    """Export in fp32, or in `bits`."""
    return export(model, out, OpenVino(), weights=bits)


def _convert(model: Path, work: Path) -> None:
    import logging
    import warnings

    from optimum.intel import OVModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about branches that are constant here
        logging.disable(logging.WARNING)
        try:
            converted = OVModelForCausalLM.from_pretrained(
                model,
                export=True,
                compile=False,
                load_in_8bit=False,
                local_files_only=True,
                trust_remote_code=False,
            )
        finally:
            logging.disable(logging.NOTSET)
    converted.save_pretrained(work)


def _not_installed(error: Exception) -> Phi3flowError:
    return Phi3flowError(
        f"the converter is not installed: {error}",
        hint="pip install 'phi3flow[openvino]' && pip install --no-deps optimum-intel==2.2.0",
    )


def _example(tokenizer: "PreTrainedTokenizerBase", row: dict[str, Any]) -> Example:
    """A recorded answer's tokens, and the one that ends it where the model ended it."""
    from phi3flow.chats.chat_template import encode_example
    from phi3flow.chats.end_of_turn import until_end_of_turn

    prompt = row["prompt_token_ids"]
    chat = [*row["messages"], {"role": "assistant", "content": row["tuned_text"]}]
    answer = until_end_of_turn(tokenizer, encode_example(tokenizer, chat).input_ids[len(prompt) :])
    return Example(prompt, answer if row["tuned_finish_reason"] == "stop" else answer[:-1])
