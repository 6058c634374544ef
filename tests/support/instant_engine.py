"""An endpoint whose engine answers at once, so that nothing but HTTP and the chat template takes time."""

from contextlib import contextmanager

from tiny import CONTEXT, listening

from deploy.scoring.engine import Generation, Memory
from deploy.scoring.http.service import Service

ANSWER = "fox"


class Instant:
    context, waiting, running, full = CONTEXT, 0, 0, False
    memory = Memory(0, 0, 0, 0)

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def submit(self, request):
        generation = Generation(request.fitted(self.context))
        generation.write(ANSWER, 2)
        generation.finish("stop")
        return generation

    def require_grammar(self, grammar):
        """Its answer follows none."""

    def close(self):
        pass


@contextmanager
def instant_endpoint(tokenizer):
    """Its URL."""
    service = Service("instant")
    service.ready(Instant(tokenizer))
    with listening(service) as url:
        yield url
