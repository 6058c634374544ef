"""How likely a model finds the tokens of a given answer: vLLM's `prompt_logprobs`, which ours has too.

The conversation is sent with the answer as its last message and without a generation prompt, and the reply
tells how likely each token of that prompt was. Which of them are the answer's follows from the conversation
without it, asked as one would for an answer: so many tokens come before. The answer's end counts, as it does
in training; what the chat template puts behind it does not.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from phi3flow.phi3_contract import Endpoint, Garbled, Message, Rejected, Sampling, Unsupported, openai_body

ENDS_OF_TURN = ("<|end|>", "<|im_end|>", "<|endoftext|>")  # of Phi-3, 3.5 and 4-mini; of Phi-4
ONE_TOKEN = Sampling(max_tokens=1)


class Token(NamedTuple):
    """A token of the answer; `logprob` in nats."""

    id: int
    logprob: float
    text: str


def score_reference(endpoint: Endpoint, prompt: Sequence[Message], reference: str) -> list[Token]:
    """The reference's tokens with its end, as the endpoint's model sees them after `prompt`.

    Raises Unsupported or Rejected where the endpoint cannot tell, and any other EndpointError.
    """
    if endpoint.contract != "openai":
        raise Unsupported(f"contract {endpoint.contract} carries no log-likelihoods")
    asked = endpoint.ask(prompt, ONE_TOKEN, token_ids=True)
    if asked.prompt_tokens is None:
        raise Garbled("the endpoint does not tell how many tokens a prompt has")
    body = openai_body(endpoint, [*prompt, {"role": "assistant", "content": reference}], ONE_TOKEN, False)
    body |= {"prompt_logprobs": 0, "add_generation_prompt": False}
    try:
        tokens = endpoint.exchange(body, _tokens)
    except Rejected as error:
        raise Unsupported(f"the endpoint tells no log-likelihoods: {error}") from None
    if tokens is None:
        raise Unsupported("the endpoint tells no log-likelihoods")
    before = asked.prompt_token_ids or []
    if before[1:] != [token.id for token in tokens[: len(before) - 1]] and before:
        raise Garbled("the reference changes how the prompt before it is split into tokens")
    return _until_its_end(tokens[asked.prompt_tokens - 1 :])


def _tokens(reply: Any) -> list[Token] | None:
    """All tokens of the prompt but the first, which follows nothing; None where the reply tells of none."""
    entries = reply.get("prompt_logprobs")
    if not entries:
        return None
    tokens = []
    for entry in entries[1:]:
        ((token, told),) = entry.items()
        tokens.append(Token(int(token), float(told["logprob"]), str(told["decoded_token"])))
    return tokens


def _until_its_end(tokens: Sequence[Token]) -> list[Token]:
    for position, token in enumerate(tokens):
        if token.text in ENDS_OF_TURN:
            return [*tokens[: position + 1]]
    raise Garbled("the reference's end is not among the tokens")
