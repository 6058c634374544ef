"""Issue: a chat template that never ends hung the endpoint past SIGTERM, an empty one killed its engine."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests
from instant_engine import ANSWER, instant_endpoint
from tiny import CHAT, KEY, SECONDS, lively_model, new_tokenizer, saved, user
from waiting import until

from deploy.scoring.http.template_worker import RENDER_SECONDS

HEADERS = {"Authorization": f"Bearer {KEY}"}
START_SECONDS = 300  # a busy machine imports torch for minutes
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}"
# What the template does with a question of that name; any other is rendered as it should be.
HOSTILE = {
    "endless": NESTED + "{% set c = a * b %}{% endfor %}{% endfor %}",
    "endless text": NESTED + "words {% endfor %}{% endfor %}",
    "empty": "",
    "zero": "{{ 1 / 0 }}",
    "type": "{{ messages + 1 }}",
    "deep": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "memory": "{{ 'a' * 10 ** 15 }}",
    "much memory": "{{ 'a' * 10 ** 10 }}",
    "list": "{{ ([0] * 10 ** 10) | length }}",
    "nested": "{% for a in range(9) %}{{ ('a' * 10 ** 9) | replace('a', 'a' * 10 ** 9) }}{% endfor %}",
    "doubled": "{% set n = namespace(x='a') %}{% for _ in range(50) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "padded": "{{ 'a'.ljust(10 ** 10) }}",
    "formatted": "{{ '%010000000000d' % 1 }}",
    "lists": "{{ range(99999) | batch(10 ** 10, 0) | list | length }}",
    "power": "{{ 7 ** (10 ** (messages | length + 8)) }}",
    "long": "{{ 'a' * 10 ** (messages | length + 7) }}",
    "private": "{{ messages.__class__.__base__.__subclasses__() }}",
    "words": "{{ raise_exception('not ' * 10000) }}",
}
ENDLESS_OR_MEMORY = "chat template "  # which comes first, a machine's speed decides
SAID = {
    "endless": f"took longer than {RENDER_SECONDS:.0f} s",
    "endless text": ENDLESS_OR_MEMORY,
    "empty": "makes nothing of these messages",
    "zero": "ZeroDivisionError: division by zero",
    "type": "TypeError: ",
    "deep": "RecursionError: ",
    "memory": "MemoryError",
    "much memory": "MemoryError",
    "list": "MemoryError",
    "nested": "MemoryError",
    "doubled": "MemoryError",
    "padded": "MemoryError",
    "formatted": "MemoryError",
    "lists": "MemoryError",
    "power": f"took longer than {RENDER_SECONDS:.0f} s",
    "long": "the prompt has at least ",
    "private": "is unsafe",
    "words": "refuses these messages: not not",
}


def hostile_tokenizer(names=tuple(HOSTILE)):
    tokenizer = new_tokenizer()
    cases = "".join(f"{{% elif messages[0].content == '{name}' %}}{HOSTILE[name]}" for name in names)
    tokenizer.chat_template = f"{{% if false %}}{cases}{{% else %}}{tokenizer.chat_template}{{% endif %}}"
    return tokenizer


@pytest.fixture(scope="module")
def url():
    with instant_endpoint(hostile_tokenizer()) as found:
        yield found


def ask(url, question):
    body = {"messages": user(question), "max_tokens": 2}
    return requests.post(url + CHAT, json=body, headers=HEADERS, timeout=SECONDS)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_template_does_is_a_400_with_its_words_and_the_endpoint_goes_on(url, name):
    refused = ask(url, name)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    assert SAID[name] in refused.json()["error"]["message"]
    assert len(refused.json()["error"]["message"]) < 500
    assert ask(url, "Who?").json()["choices"][0]["message"]["content"] == ANSWER


def test_a_template_that_never_ends_does_not_outlive_sigterm(tmp_path):
    tokenizer = hostile_tokenizer(["endless"])
    folder = saved(lively_model(tokenizer), tokenizer, tmp_path / "hostile")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-P", "-m", "phi3flow", "serve", str(folder), "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ | {"PHI3FLOW_ENDPOINT_KEY": KEY})
    try:
        until(lambda: is_ready(url), START_SECONDS)
        threading.Thread(target=lambda: ask(url, "endless"), daemon=True).start()
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        assert server.wait(START_SECONDS) == 0
    finally:
        server.kill()
        server.wait()


def is_ready(url):
    try:
        return requests.get(f"{url}/health/ready", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
