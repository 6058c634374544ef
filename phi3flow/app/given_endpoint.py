"""An endpoint as the command line names it."""

from collections.abc import Iterator
from contextlib import contextmanager

from phi3flow.core.errors import BadInput


def contract_of(url: str) -> str:
    """The contract that is spoken at `url`, as far as the path tells."""
    return "openai" if url.endswith("/chat/completions") else "B"


@contextmanager
def checked_arguments() -> Iterator[None]:
    """A URL or a contract that no Endpoint can have was typed: BadInput, not a request that failed."""
    from phi3flow.phi3_contract import Rejected

    try:
        yield
    except Rejected as error:
        raise BadInput(str(error), error.hint) from None
