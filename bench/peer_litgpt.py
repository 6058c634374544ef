"""litgpt for bench/peers.py: its full fine-tuning, answers only. `python peer_litgpt.py TASK`

The model is first written down as litgpt reads it: untied, and without dropout, which it does not have. A
batch is one forward pass, not single chats accumulated as by its default: that is faster.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import JSON
from litgpt.finetune.full import setup
from litgpt.prompts import PromptStyle
from litgpt.utils import save_config
from safetensors.torch import load_file

NEVER = 10**9  # steps between validations
LAYER = {
    "input_layernorm": "norm_1",
    "self_attn.qkv_proj": "attn.qkv",
    "self_attn.o_proj": "attn.proj",
    "post_attention_layernorm": "norm_2",
    "mlp.down_proj": "mlp.proj",
}


class Question(PromptStyle):
    """Phi-3's chat template for one question."""

    def apply(self, prompt, *, sys_prompt=None, **kwargs):
        return f"<|user|>\n{prompt}<|end|>\n<|assistant|>\n"


def config_of(shape):
    return Config(
        name="base",
        block_size=shape["max_position_embeddings"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        n_layer=shape["num_hidden_layers"],
        n_head=shape["num_attention_heads"],
        n_query_groups=shape["num_key_value_heads"],
        n_embd=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
    )


def weights_of(stored, layers):
    """Phi-3's weights under litgpt's names."""
    ends = {"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f"}
    named = {f"{theirs}.weight": stored[f"{ours}.weight"] for ours, theirs in ends.items()}
    named["lm_head.weight"] = stored.get("lm_head.weight", stored["model.embed_tokens.weight"]).clone()
    for i in range(layers):
        for ours, theirs in LAYER.items():
            named[f"transformer.h.{i}.{theirs}.weight"] = stored[f"model.layers.{i}.{ours}.weight"]
        gate, up = stored[f"model.layers.{i}.mlp.gate_up_proj.weight"].chunk(2)
        named |= {f"transformer.h.{i}.mlp.fc_1.weight": gate, f"transformer.h.{i}.mlp.fc_2.weight": up}
    return named


def write_model(source, folder):
    folder.mkdir()
    config = config_of(json.loads((source / "config.json").read_text()))
    save_config(config, folder)
    torch.save(weights_of(load_file(source / "model.safetensors"), config.n_layer), folder / "lit_model.pth")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)


def write_chats(source, target):
    turns = [json.loads(line)["messages"] for line in source.read_text().splitlines()]
    rows = [{"instruction": asked["content"], "output": answer["content"]} for asked, answer in turns]
    target.write_text(json.dumps(rows))


def main(task):
    work = Path(task["work"])
    data = work / "data"
    data.mkdir(parents=True)
    write_model(Path(task["model"]), work / "base")
    for name in ("train", "val"):
        write_chats(Path(task[name]), data / f"{name}.json")
    sys.argv = ["litgpt", str(work / "base")]  # it reads the command line again to save its settings
    chats = JSON(data, mask_prompt=True, prompt_style=Question())
    setup(
        checkpoint_dir=work / "base",
        out_dir=work / "out",
        precision="bf16-mixed" if task["bf16"] else "32-true",
        data=chats,
        train=TrainArgs(
            save_interval=NEVER,
            log_interval=1,
            global_batch_size=task["batch"],
            micro_batch_size=task["batch"],
            lr_warmup_steps=1,
            epochs=task["epochs"],
        ),
        eval=EvalArgs(interval=NEVER, max_iters=1, max_new_tokens=1, final_validation=False),
        seed=task["seed"],
    )
    with next(work.rglob("metrics.csv")).open() as file:
        times = [float(row["iter_time"]) for row in csv.DictReader(file) if row["iter_time"]]
    tokens = sum(int((row["labels"] >= 0).sum()) for row in chats.train_dataset)
    print(json.dumps({"seconds": sum(times), "steps": len(times), "tokens": tokens}))


if __name__ == "__main__":  # its workers import this file
    main(json.loads(Path(sys.argv[1]).read_text()))
