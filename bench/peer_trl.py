"""Plain TRL for bench/peers.py: SFTTrainer and its defaults on prompts and completions. `peer_trl.py TASK`"""

import json
import sys
from pathlib import Path

from clock import CountingClock
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

task = json.loads(Path(sys.argv[1]).read_text())
chats = [json.loads(line)["messages"] for line in Path(task["train"]).read_text().splitlines()]
rows = Dataset.from_list([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats])
settings = SFTConfig(
    output_dir=task["work"],
    per_device_train_batch_size=task["batch"],
    num_train_epochs=task["epochs"],
    bf16=task["bf16"],
    seed=task["seed"],
    save_strategy="no",
    report_to="none",
    disable_tqdm=True,
    use_cpu=True,
)
clock = CountingClock()
SFTTrainer(model=task["model"], args=settings, train_dataset=rows, callbacks=[clock]).train()
clock.print()
