"""Exporting a model folder to OpenVINO, checked against the model before the export appears."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.export.quantise import Bits, Example, Quantised, quantise
from deploy.scoring.engines.openvino_worker import silence_openvino
from phi3flow.chats.system_prompt import FIELD as SYSTEM_PROMPT
from phi3flow.chats.system_prompt import recorded_system_prompt
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError, translating
from phi3flow.core.files import leads_out
from phi3flow.core.jsonl import read_jsonl
from phi3flow.core.lineage import Artifact, new_output, write_manifest
from training.models.loading import LICENCES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FP32 = Quantised("fp32", None, 1.0)
PROBES = "probes.jsonl"
# What serving reads besides the weights; the converter writes the configuration itself.
COPIED = ("*.jinja", "added_tokens.json", "special_tokens_map.json", "tokenizer*", PROBES, *LICENCES)


@dataclass(frozen=True)
class Exported:
    """The folder, how its weights are stored, and on how many prompts it was checked."""

    folder: Path
    weights: Quantised
    probes: int


def export_openvino(model: Path, out: Path, *, bits: Bits | None = None) -> Exported:
    """Convert a model folder for the openvino engine; `out` appears when it is complete and checked.

    Its greedy answers in fp32 must equal those of transformers; `bits` quantises after that check. Raises
    BadInput for an unusable model or an existing `out`, Phi3flowError if the converter is not installed or
    its model answers differently.
    """
    new_output(out)
    work = out.with_name(f".{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        exported = _export(model, work, bits)
        details = {"format": "openvino", **asdict(exported.weights), "probes": exported.probes}
        details[SYSTEM_PROMPT] = recorded_system_prompt(model)
        inputs = [Artifact.of("model", model)]
        write_manifest(work, "model", inputs=inputs, outputs=[Artifact.of("model", work)], details=details)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(exported, folder=out)


def _export(model: Path, work: Path, bits: Bits | None) -> Exported:
    from transformers.utils import logging

    from training.models.loading import load_model, load_tokenizer
    from training.models.probes import answer_greedily, fixed_prompts, most_tokens

    silence_openvino()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    _copied(model)
    tokenizer, loaded = load_tokenizer(str(model)), load_model(str(model))
    prompts = fixed_prompts(tokenizer)
    if (model / PROBES).is_file():
        prompts = {row["id"]: row["messages"] for row in read_jsonl(model / PROBES)}
    say(f"asking the model {len(prompts)} prompts")
    expected = {name: one.text for name, one in answer_greedily(loaded, tokenizer, prompts).items()}
    widths, limit = [loaded.config.hidden_size, loaded.config.intermediate_size], most_tokens(loaded)
    del loaded
    say("converting the model")
    _convert(model, work)
    _copy_files(model, work)
    say("asking the converted model the same prompts")
    answers = asyncio.run(_answer(work, tokenizer, list(prompts.values()), limit))
    _require_equal(dict(zip(prompts, answers, strict=True)), expected)
    if bits is None:
        return Exported(work, FP32, len(prompts))
    examples = [_example(tokenizer, prompts[name], expected[name]) for name in prompts]
    return Exported(work, quantise(work, widths, examples, bits), len(prompts))


def _convert(model: Path, work: Path) -> None:
    import logging
    import warnings

    with translating({ImportError: _not_installed}):
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


def _copy_files(model: Path, work: Path) -> None:
    for file in _copied(model):
        shutil.copy2(file, work / file.name)


def _copied(model: Path) -> list[Path]:
    """Raises BadInput for a link that leads out of the model; those of the hub's cache lead to its blobs."""
    cached = model.resolve().parents[1] if model.resolve().parent.name == "snapshots" else model
    files = [file for pattern in COPIED for file in sorted(model.glob(pattern)) if file.is_file()]
    for file in files:
        if leads_out(file, cached):
            raise BadInput(
                f"{file}: a link that leads out of the model's folder", hint="put the file itself there"
            )
    return files


def _require_equal(answers: dict[str, str], expected: dict[str, str]) -> None:
    wrong = [name for name, answer in answers.items() if answer != expected[name]]
    if wrong:
        raise Phi3flowError(
            f"the converted model answers {len(wrong)} of {len(answers)} prompts differently: "
            + ", ".join(wrong),
            hint="serve the model folder itself: phi3flow serve MODEL --engine transformers",
        )


async def _answer(
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[list[dict[str, str]]],
    max_tokens: int,
) -> list[str]:
    """Ask the engine that will serve it."""
    from deploy.scoring.engine import GenerationRequest
    from deploy.scoring.engines.openvino_engine import OpenVinoEngine
    from phi3flow.chats.chat_template import encode_prompt

    engine = OpenVinoEngine(folder, tokenizer)
    try:
        requests = [
            GenerationRequest(tuple(encode_prompt(tokenizer, prompt)), max_tokens) for prompt in prompts
        ]
        return list(await asyncio.gather(*[engine.submit(request).text() for request in requests]))
    finally:
        await asyncio.to_thread(engine.close)


def _example(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]], answer: str) -> Example:
    from phi3flow.chats.chat_template import encode_example, encode_prompt

    prompt = encode_prompt(tokenizer, messages)
    whole = encode_example(tokenizer, [*messages, {"role": "assistant", "content": answer}])
    return Example(prompt, whole.input_ids[len(prompt) :])
