"""LLaMA-Factory for bench/peers.py: full fine-tuning by its own entry point. `peer_llamafactory.py TASK`

It imports torchaudio, which bench/peers.py has removed, for audio alone: an empty module stands in.
"""

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from clock import CountingClock

sys.modules["torchaudio"] = module_from_spec(ModuleSpec("torchaudio", None))
from llamafactory.train.tuner import run_exp  # noqa: E402

NAMES = {f"{role}_tag": role for role in ("user", "assistant", "system")}

task = json.loads(Path(sys.argv[1]).read_text())
train, work = Path(task["train"]), Path(task["work"])
dataset = {
    "file_name": train.name,
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {"role_tag": "role", "content_tag": "content", **NAMES},
}
(train.parent / "dataset_info.json").write_text(json.dumps({"chats": dataset}))
clock = CountingClock()
run_exp(
    {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "model_name_or_path": task["model"],
        "template": "phi",
        "dataset": "chats",
        "dataset_dir": str(train.parent),
        "output_dir": str(work),
        "per_device_train_batch_size": task["batch"],
        "num_train_epochs": task["epochs"],
        "bf16": task["bf16"],
        "seed": task["seed"],
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    },
    [clock],
)
clock.print()
