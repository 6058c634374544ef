"""ONNX Runtime GenAI on the CPU, for folders of its model builder: one answer after the other."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.scoring.engine import (
    MAX_WAITING,
    Engine,
    EngineClosed,
    Generation,
    GenerationRequest,
    Memory,
    SchemaRefused,
    TokenScore,
)
from deploy.scoring.engines.answer import Answer
from deploy.scoring.engines.fixed_cache import bytes_per_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL_FILE = "genai_config.json"
FP32 = 4  # bytes of a value
SEED_MASK = (1 << 31) - 1


class OnnxEngine(Engine):
    """At most `max_waiting` requests wait. `on_failure` is called, from the engine's thread, when it dies."""

    def __init__(
        self,
        folder: Path,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_waiting: int = MAX_WAITING,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        import onnxruntime_genai
        from transformers import AutoConfig, GenerationConfig

        onnxruntime_genai.disable_telemetry_events()
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        super().__init__(config, GenerationConfig.from_pretrained(folder), tokenizer, max_waiting, on_failure)
        self._model = onnxruntime_genai.Model(str(folder))
        weights = sum(file.stat().st_size for file in folder.glob("*.onnx*"))
        self._memory = Memory(weights, self.context * bytes_per_token(config, FP32), 0, self.context)
        self._running: Generation | None = None
        self._thread = threading.Thread(target=self._work, name=type(self).__name__)
        self._thread.start()

    @property
    def running(self) -> int:
        return int(self._running is not None)

    @property
    def memory(self) -> Memory:
        return self._memory

    def require_grammar(self, grammar: str) -> None:
        raise SchemaRefused("the onnx engine holds no answer to a schema; transformers and openvino do")

    def close(self) -> None:
        """End after the current token and wait for it."""
        self._set_end(EngineClosed("the server is going down"))
        self._thread.join()

    def _work(self) -> None:
        """A crash shows its traceback (the thread's); pending requests fail however this ends."""
        try:
            while generation := self._next():
                self._answer(generation)
                self._running = None
        finally:
            self._fail()
            self._fail_pending([self._running] if self._running else [])

    def _next(self) -> Generation | None:
        with self._changed:
            self._changed.wait_for(lambda: self._end or self._first_waiting())
            if self._end is None:
                self._running = self._queue.popleft()
        return self._running

    def _answer(self, generation: Generation) -> None:
        answer = Answer(generation, self._decode, self._stop_ids)
        generator = self._begun(generation.request)
        if generation.request.score_prompt:
            logits = generator.get_output("logits")[0]
            generation.prompt_scores = list(self._scores(generation.request.prompt_token_ids, logits))
        while not self._end:
            generator.generate_next_token()
            if not answer.accept(int(generator.get_next_tokens()[0])):
                break

    def _begun(self, request: GenerationRequest) -> Any:
        """A generator that has read the prompt."""
        import numpy as np
        from onnxruntime_genai import Generator, GeneratorParams

        options: dict[str, Any] = {"do_sample": False}
        if request.temperature > 0:
            options = {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p}
            # All of them. With 0, which means the same, GenAI 0.18 draws tokens outside of the nucleus too.
            options["top_k"] = len(self.tokenizer)
            if request.seed is not None:
                options["random_seed"] = request.seed & SEED_MASK
        parameters = GeneratorParams(self._model)
        parameters.set_search_options(
            max_length=len(request.prompt_token_ids) + request.max_tokens, **options
        )
        generator = Generator(self._model, parameters)
        generator.append_tokens(np.array(request.prompt_token_ids, dtype=np.int32))
        return generator

    def _scores(self, prompt: Sequence[int], logits: Any) -> Iterator[TokenScore]:
        """`logits`: (tokens, vocabulary). Tokens that are equally likely share the better rank."""
        import torch

        logprobs = torch.from_numpy(logits[:-1]).float().log_softmax(dim=-1)
        scored = list(prompt[1:])
        chosen = logprobs.gather(1, torch.tensor(scored)[:, None])
        ranks = (logprobs > chosen).sum(dim=-1) + 1
        texts = self.tokenizer.batch_decode([[token] for token in scored])
        yield from map(TokenScore, scored, texts, chosen.squeeze(1).tolist(), ranks.tolist())
