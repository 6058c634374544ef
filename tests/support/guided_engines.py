"""The two engines that hold answers to a grammar, over a tiny model, and a client of OpenAI's package."""

from contextlib import contextmanager

import openai
from tiny import KEY, SECONDS, listening, lively_model, saved

from deploy.export.openvino import export_openvino
from deploy.scoring.engines.openvino_engine import OpenVinoEngine
from deploy.scoring.engines.transformers_engine import TransformersEngine
from deploy.scoring.http.service import Service

GUIDED = ("transformers", "openvino")


@contextmanager
def guided_engine(name, tokenizer, folder):
    """One of GUIDED until the block ends; `folder` is for an export."""
    model = lively_model(tokenizer, hidden_size=64)
    if name == "transformers":
        made = TransformersEngine(model, tokenizer)
    else:
        exported = export_openvino(saved(model, tokenizer, folder / "tuned"), folder / "exported").folder
        made = OpenVinoEngine(exported, tokenizer, threads=1)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def sdk_of(engine):
    """A client of an endpoint that serves the engine."""
    service = Service("tiny")
    service.ready(engine)
    with listening(service, request_timeout=SECONDS) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
