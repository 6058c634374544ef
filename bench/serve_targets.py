"""The servers of `make bench-serve`: two models, each behind our engines and `mlflow models serve`."""

import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from http_load import Answer, Request, Target

from deploy.export.openvino import export_openvino
from phi3flow.app.services import scoring_endpoint
from phi3flow.chats.chat_template import encode_prompt
from phi3flow.core.child_process import module_command
from phi3flow.core.service_stack import Service
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED

KEY = "bench-key"
TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "phi3_tokenizer"
PORTS = {"mlflow": 5071, "transformers": 5072, "fp32": 5073, "int4": 5074}
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Subject:
    """A model in every format, its questions, and the maximum tokens of an answer."""

    name: str
    folder: Path
    fp32: Path
    int4: Path
    mlflow: Path
    questions: Sequence[str]
    max_tokens: int


def new_large_model(folder: Path) -> None:
    """A Phi-3 with 120 M random weights and the real tokenizer; special tokens are unlikely."""
    import torch
    from transformers import AutoTokenizer

    from training.models.scratch import new_model
    from training.recipes.recipe import Scratch

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    shape = Scratch(
        vocab_size=len(tokenizer), hidden_size=768, intermediate_size=2432, layers=12, heads=12, context=2048
    )
    model = new_model(shape, tokenizer, seed=0)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.all_special_ids] = 0
    print(f"  {model.num_parameters() / 1e6:.1f} M parameters", file=sys.stderr)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_for_mlflow(folder: Path, out: Path, max_tokens: int) -> None:
    """Save as in the tutorial. mlflow ignores a request's parameters, so they go into the model's config."""
    import mlflow
    from mlflow.models import infer_signature

    from training.models.loading import load_model, load_tokenizer

    model, tokenizer = load_model(str(folder)), load_tokenizer(str(folder))
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer},
        str(out),
        task="text-generation",
        signature=infer_signature("question", "answer"),
        model_config={"max_new_tokens": max_tokens, "do_sample": False, "return_full_text": False},
        pip_requirements=["mlflow", "torch", "transformers"],
    )


def prepare(name: str, work: Path, tuned: Path) -> Subject:
    """Build what is missing below `work`."""
    if name == "tiny":
        folder, max_tokens = tuned, 64
        rows = [json.loads(line) for line in (tuned.parent / "test.jsonl").open(encoding="utf-8")]
        questions = [row["messages"][-2]["content"] for row in rows]
    else:
        folder, max_tokens = work / "large", 64
        draw = random.Random(0)
        words = ["element", "planet", "country", "company", "capital", "moon", "metal", "river", "founded"]
        questions = [" ".join(draw.choices(words, k=12)) for _ in range(500)]
        if not folder.exists():
            new_large_model(folder)
    subject = Subject(
        name,
        folder,
        work / f"{name}-fp32",
        work / f"{name}-int4",
        work / f"{name}-mlflow",
        questions,
        max_tokens,
    )
    if not subject.mlflow.exists():
        save_for_mlflow(folder, subject.mlflow, max_tokens)
    for out, int4 in ((subject.fp32, False), (subject.int4, True)):
        if not out.exists():
            export_openvino(folder, out, bits="int4" if int4 else None)
    return subject


def services(subject: Subject, logs: Path) -> list[Service]:
    """All servers of one subject; they are measured one at a time."""
    ours = {"transformers": subject.folder, "fp32": subject.fp32, "int4": subject.int4}
    options = ["--port", PORTS["mlflow"], "--env-manager", "local", "--timeout", "900"]
    mlflow = module_command("mlflow", "models", "serve", "--model-uri", subject.mlflow, *options)
    path = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow starts uvicorn by its name
    )
    quiet = {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1"}
    log = logs / f"{subject.name}-mlflow.log"
    return [
        Service("mlflow", mlflow, PORTS["mlflow"], "/ping", "endpoint_port", log, quiet),
        *(
            scoring_endpoint(
                folder,
                TUNED,
                Settings(endpoint_port=PORTS[name], endpoint_key=KEY),
                logs / f"{subject.name}-{name}.log",
            )
            for name, folder in ours.items()
        ),
    ]


def target_of(subject: Subject, name: str, *, stream: bool) -> Target:
    """What to ask a server. mlflow does not stream and takes no messages: prompts are rendered here."""
    from training.models.loading import load_tokenizer

    tokenizer = load_tokenizer(str(subject.folder))

    def messages(number: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": subject.questions[number % len(subject.questions)]}]

    def chat(number: int) -> Request:
        body = {"messages": messages(number), "max_tokens": subject.max_tokens}
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return Request(CHAT, body | options)

    def invocation(number: int) -> Request:
        return Request(
            "/invocations", {"inputs": [tokenizer.decode(encode_prompt(tokenizer, messages(number)))]}
        )

    def recounted(answer: Answer) -> int:
        tokens = tokenizer.encode(answer.text, add_special_tokens=False)
        return min(len(tokens) + 1, subject.max_tokens)  # its end is a token too

    if name == "mlflow":
        return Target(PORTS[name], "", invocation, recounted)
    return Target(PORTS[name], KEY, chat)


def limit_of(subject: Subject, name: str) -> dict:
    """`engine_limit.py` with the same model, prompts and limits as the endpoint."""
    from phi3flow.chats.end_of_turn import stop_token_ids
    from training.models.loading import load_tokenizer

    tokenizer = load_tokenizer(str(subject.folder))
    asked = [[{"role": "user", "content": question}] for question in subject.questions]
    return {
        "folder": str(getattr(subject, name)),
        "exact": name == "fp32",
        "prompts": [encode_prompt(tokenizer, messages) for messages in asked],
        "max_tokens": subject.max_tokens,
        "stop_ids": stop_token_ids(tokenizer),
    }


def peak_mib(pid: int) -> int:
    """Peak resident memory of a process and its children, in MiB."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    lines = [line for p in processes for line in Path(f"/proc/{p.pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10
