"""Where the chat flow of each side is served, and what it tells of itself."""

from phi3flow.core.service_stack import LOOPBACK
from phi3flow.core.settings import Settings
from phi3flow.core.sides import SIDES, TUNED
from phi3flow.phi3_contract import Endpoint

ANSWER_SECONDS = 120.0  # longer than the flow's own deadline, so that the flow reports what went wrong
_contexts: dict[int, int] = {}  # of running endpoints, by port
_prompts: dict[int, str] = {}  # of served flows, by port


def port_of(model: str) -> int:
    """The port of the chat flow of `base` or `tuned`."""
    return int(getattr(Settings.load(), next(side.flow_port for side in SIDES if side.name == model)))


def flow_of(model: str) -> Endpoint:
    url = f"http://{LOOPBACK}:{port_of(model)}/score"
    return Endpoint(url, Settings.load().flow_key, "promptflow", timeout=ANSWER_SECONDS)


def default_system_prompt() -> str:
    """What the tuned model's flow sends where a request has none: the training data's system prompt."""
    port = port_of(TUNED.name)
    if port not in _prompts and (told := flow_of(TUNED.name).system_prompt()):
        _prompts[port] = told
    return _prompts.get(port, "")


def served_context() -> int | None:
    """The context of the tuned model's endpoint, which never changes: asked until it is told."""
    port = Settings.load().endpoint_port
    endpoint = Endpoint(f"http://{LOOPBACK}:{port}/", contract="openai")
    if port not in _contexts and (told := endpoint.context()):
        _contexts[port] = told
    return _contexts.get(port)
