"""Load a model and its tokenizer from a folder or the hub. Code from the hub is never run."""

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from phi3flow.chats.template_check import keep_system
from phi3flow.core.errors import BadInput, Phi3flowError, first_line, nearest, translating
from phi3flow.core.files import leads_out
from training.models.sound_files import require_sound_files
from training.models.whole_weights import require_floats, require_numbers, require_whole

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LICENCES = ("LICENSE", "NOTICE")
TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")


def load_tokenizer(model: str, *, revision: str | None = None) -> "PreTrainedTokenizerBase":
    """The tokenizer. Raises BadInput if it or its chat template is missing."""
    from transformers import AutoTokenizer

    if Path(model).is_dir() and not (Path(model) / "tokenizer.json").is_file():
        raise BadInput(
            f"{model}: no tokenizer.json", hint="copy the tokenizer files of the model it was made from"
        )
    if Path(model).is_dir():
        require_sound_files(Path(model))
        for file in (file for pattern in TEMPLATES for file in Path(model).glob(pattern)):
            require_own(file, Path(model))  # its text would be in every prompt, and in what is trained
    with _loading("tokenizer", model, revision):
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision or "main", trust_remote_code=False)
    tokenizer.chat_template = _only_template(tokenizer, model)
    keep_system(tokenizer)
    return tokenizer


def _only_template(tokenizer: "PreTrainedTokenizerBase", model: str) -> str:
    """Of several chat templates the one for chats, which is named default. Raises BadInput for none."""
    found = tokenizer.chat_template
    template = found.get("default") if isinstance(found, dict) else found
    if isinstance(template, str):
        return template
    if found is None:
        raise BadInput(f"{model}: the tokenizer has no chat template", hint="use an instruct model")
    raise BadInput(
        f"{model}: none of the tokenizer's chat templates is text with the name default",
        hint="save the one for chats as chat_template.jinja",
    )


def load_config(model: str, *, revision: str | None = None) -> "PreTrainedConfig":
    """The model's configuration, without weights. Raises BadInput."""
    from transformers import AutoConfig

    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise BadInput(
            f"{model}: not a model folder (no config.json)",
            hint=f"phi3flow base --pretrained --out {shlex.quote(model)}",
        )
    if Path(model).is_dir():
        require_sound_files(Path(model))
    with _loading("configuration", model, revision):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            model, revision=revision or "main", trust_remote_code=False
        )
    return config


def load_model(
    model: str,
    *,
    revision: str | None = None,
    weights: str = "fp32",
    attention: str = "sdpa",
    four_bit: bool = False,
) -> "PreTrainedModel":
    """The causal language model, its weights in `weights` (fp32 or bf16) or 4-bit NF4.

    Raises BadInput, also for files that lack a tensor of the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = load_config(model, revision=revision)
    quantized = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    with _loading("model", model, revision):
        if Path(model).is_dir():
            require_floats(Path(model), config.to_dict())
        loaded: PreTrainedModel
        loaded, info = AutoModelForCausalLM.from_pretrained(
            model,
            config=config,
            revision=revision or "main",
            trust_remote_code=False,
            dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[weights],
            attn_implementation=attention,
            quantization_config=quantized if four_bit else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that `info` names them
        )
    require_whole(model, info)
    if not four_bit:
        require_numbers(model, loaded)
    return loaded


def weights_folder(model: str, revision: str | None) -> Path:
    """The folder with a loaded model's files: its own, or its snapshot in the hub's cache."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(model, "config.json", revision=revision, local_files_only=True)).parent


def licence_files(model: str, revision: str | None) -> list[Path]:
    """What a model that is trained from `model` has to carry, too. Raises what `require_own` raises."""
    folder = weights_folder(model, revision)
    return [require_own(folder / name, folder) for name in LICENCES if (folder / name).is_file()]


def require_own(file: Path, model: Path) -> Path:
    """Return a file of a model's folder that is to be copied.

    Raises BadInput for a link that leads out of the folder; those of the hub's cache lead to its blobs.
    """
    folder = model.resolve()
    if leads_out(file, folder.parents[1] if folder.parent.name == "snapshots" else folder):
        raise BadInput(
            f"{file}: a link that leads out of the model's folder", hint="put the file itself there"
        )
    return file


def served_context(config: "PreTrainedConfig") -> int:
    """Context in tokens: with longrope the original one, as its long factors apply to a whole batch."""
    scaled = (config.rope_parameters or {}).get("rope_type") == "longrope"
    return int(config.original_max_position_embeddings if scaled else config.max_position_embeddings)


def _loading(what: str, model: str, revision: str | None) -> AbstractContextManager[None]:
    """Turn the errors of transformers and the hub client into one sentence and what to do."""

    def missing_package(error: Exception) -> Exception:
        return BadInput(
            f"{model}: {first_line(error)}",
            hint='install it, or set attention = "sdpa" and four_bit = false in the recipe',
        )

    def pickled(error: Exception) -> Exception:
        return BadInput(
            f"{model}: its weights are a pickle that cannot be read without running what is in it",
            hint="use the model's safetensors files",
        )

    def unusable(error: Exception) -> Exception:
        return _explained(error, what, model, revision)

    # Exception: a tokenizer.json or config.json of another shape fails in many ways inside transformers.
    return translating({ImportError: missing_package, UnpicklingError: pickled, Exception: unusable})


def _explained(error: Exception, what: str, model: str, revision: str | None) -> Phi3flowError:
    """The error to raise when `what` of `model` cannot be loaded."""
    from httpx import HTTPError
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if "custom code" in str(error):
        return BadInput(
            f"{model}: the {what} needs code that the model brings along, which phi3flow never runs",
            hint="use a model that transformers knows by itself, such as a Phi-3",
        )
    causes, page = _causes(error), f"https://huggingface.co/{model}"
    if _any(causes, GatedRepoError):
        return BadInput(
            f"{model}: the model is gated, and you have no access to it",
            hint=f"accept its terms at {page}, then run hf auth login",
        )
    if _any(causes, RevisionNotFoundError):
        return BadInput(f"{model}: no revision '{revision}'", hint=f"see {page}/commits/main")
    if _any(causes, RepositoryNotFoundError, HFValidationError):
        return BadInput(
            f"{model}: no such model folder, and no such public model on the hub", hint=what_exists(model)
        )
    if _any(causes, OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError, ConnectionError):
        return Phi3flowError(
            f"{model}: the {what} is not in the cache, and the hub cannot be reached",
            hint="check the network and run the same command again: it keeps the files that are complete",
        )
    return BadInput(
        f"{model}: the {what} cannot be loaded: {first_line(error)}",
        hint="give an existing model folder, or a hub id of a Phi-3",
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and everything that led to it: transformers wraps huggingface_hub's errors."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _any(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def looks_like_id(model: str) -> bool:
    """Whether this is ORG/NAME of the hub, not a path: absolute, into runs/ or into an existing folder."""
    path = Path(model)
    within = path.is_absolute() or path.parts[:1] == ("runs",) or path.parent.is_dir()
    return len(path.parts) == 2 and not within and not model.startswith(".")


def what_exists(model: str) -> str:
    """A hint: for a folder the command that makes it and its neighbours, else the recipes' hub models."""
    from training.recipes.recipe import load_recipe, recipe_names

    if looks_like_id(model) or Path(model).name == model:
        return nearest(model, {name for recipe in recipe_names() if (name := load_recipe(recipe).model)})
    folders = [path.parent.as_posix() for path in Path(model).parent.glob("*/config.json")]
    make = f"phi3flow base --pretrained --out {shlex.quote(model)}"
    return f"{make}; {nearest(model, folders)}" if folders else make
