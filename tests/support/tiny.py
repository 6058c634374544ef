"""A tiny Phi-3 with random weights behind our engines and endpoint: where several test modules start."""

import asyncio
import socket
import threading
from contextlib import contextmanager

import torch
import uvicorn

from deploy.scoring.http.app import create_app
from deploy.scoring.http.connection import BoundedConnection
from deploy.scoring.server import server_config
from phi3flow.chats.chat_template import encode_prompt
from training.models.scratch import BYTES, SPECIAL_TOKENS, new_model, train_tokenizer
from training.recipes.recipe import Scratch

KEY = "planted-key-51c0ffee"
CHAT = "/v1/chat/completions"
CONTEXT = 50_000  # so long that an answer of that length never ends within a test
SECONDS = 60  # for what must happen, on whatever machine
TEXTS = (
    "Who founded it? one two three four five",
    "The quick brown fox jumps over the lazy dog. Ünïcödé 東京 🙂",
)


def user(text):
    return [{"role": "user", "content": text}]


def new_tokenizer():
    return train_tokenizer(TEXTS * 3, 400, CONTEXT)


def lively_model(tokenizer, hidden_size=32, layers=2):
    """Random weights large enough that prompts matter, and words as answers: no bytes, no special tokens."""
    sizes = {"hidden_size": hidden_size, "intermediate_size": 64, "layers": layers, "heads": 2}
    shape = Scratch(**sizes, vocab_size=400, context=CONTEXT)
    model = new_model(shape, tokenizer, seed=0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name:
                weights.normal_(std=0.3)
        model.model.embed_tokens.weight[: len(SPECIAL_TOKENS + BYTES)] = 0
    return model.eval()


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts_of(tokenizer, questions):
    return [tuple(encode_prompt(tokenizer, user(question))) for question in questions]


def generated(model, tokenizer, prompt, tokens):
    """The text that `model.generate` answers greedily to a prompt's token ids, alone."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, pad_token_id=3
    )
    return tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)


def answers(engine, requests):
    """Each request's text and generation, asked together."""

    async def ask():
        generations = [engine.submit(request) for request in requests]
        async with asyncio.timeout(SECONDS):
            texts = await asyncio.gather(*[generation.text() for generation in generations])
        return list(zip(texts, generations, strict=True))

    return asyncio.run(ask())


def texts(engine, requests):
    return [text for text, _ in answers(engine, requests)]


@contextmanager
def listening(service, *, key=KEY, request_timeout=SECONDS, connection=BoundedConnection, origins=()):
    """The endpoint of a service on a free port, and its URL."""
    bound = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = uvicorn.Server(server_config(create_app(service, key, request_timeout, origins), connection))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        service.close()
        thread.join()
