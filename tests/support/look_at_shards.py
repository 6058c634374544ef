"""`phi3flow` with a callback that writes down what this rank holds: seen.json, after each step."""

import json
import sys
from pathlib import Path

import transformers.trainer
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from phi3flow.app.cli import main


class Look(TrainerCallback):
    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        weights = list(model.parameters())
        moments = [kept["exp_avg"] for kept in optimizer.state.values()]
        seen = {
            "sharded": all(isinstance(tensor, DTensor) for tensor in weights + moments),
            "weights": sum(weight.numel() for weight in weights),
            "own weights": sum(weight.to_local().numel() for weight in weights),
            "own moments": sum(moment.to_local().numel() for moment in moments),
        }
        Path("seen.json").write_text(json.dumps(seen))


transformers.trainer.DEFAULT_CALLBACKS.append(Look)
sys.exit(main())
