"""The logged MLflow model: chats in, answers out, with the same chat template as in training.

MLflow runs this file by itself ("models from code"), in `mlflow models serve` and in Azure's scoring server.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

MODEL = "model"
MAX_NEW_TOKENS = 256
# A data frame: Azure's scoring server builds its request schema from the example, and a dict crashes it.
EXAMPLE = pd.DataFrame({"messages": [[{"role": "user", "content": "Who founded Microsoft?"}]]})


def signature() -> ModelSignature:
    """One column `messages`, one answer per row. Servers ignore parameters that are not listed here."""
    message = Object([Property("role", DataType.string), Property("content", DataType.string)])
    return ModelSignature(
        inputs=Schema([ColSpec(Array(message), name="messages")]),
        outputs=Schema([ColSpec(DataType.string)]),
        params=ParamSchema(
            [
                ParamSpec("temperature", DataType.double, 0.0),
                ParamSpec("max_new_tokens", DataType.long, MAX_NEW_TOKENS),
                ParamSpec("max_tokens", DataType.long, None),  # OpenAI's name for max_new_tokens; it wins
            ]
        ),
    )


class ChatModel(PythonModel):
    """Loads the model folder once and answers one row after another."""

    def load_context(self, context: Any) -> None:
        from training.models.loading import load_model, load_tokenizer

        self._model = load_model(context.artifacts[MODEL]).eval()
        self._tokenizer = load_tokenizer(context.artifacts[MODEL])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[str]:
        """One answer for each row of `model_input`, whose column `messages` holds chats.

        DataFrame is the only type hint from which MLflow derives no schema of its own.
        """
        from phi3flow.chats.chat_template import check_prompt
        from phi3flow.core.errors import translating
        from phi3flow.core.jsonl import RowError

        chats = [[dict(message) for message in messages] for messages in model_input["messages"]]
        with translating({RowError: lambda error: _refusal(str(error))}):
            for row, chat in enumerate(chats):
                check_prompt(chat, f"row {row}: messages")
        return [self._answer(chat, params or {}) for chat in chats]

    def _answer(self, chat: list[dict[str, str]], params: Mapping[str, Any]) -> str:
        from phi3flow.chats.chat_template import encode_prompt
        from training.models.loading import served_context
        from training.models.probes import generate

        prompt, context = len(encode_prompt(self._tokenizer, chat)), served_context(self._model.config)
        if prompt >= context:
            raise _refusal(f"the prompt has {prompt} tokens, the model's context is {context}")
        asked = params.get("max_tokens")
        if asked is None:
            asked = params.get("max_new_tokens", MAX_NEW_TOKENS)
        temperature = params.get("temperature", 0.0)
        if asked < 1 or temperature < 0:
            raise _refusal("max_new_tokens must be at least 1, temperature at least 0")
        tokens = int(min(asked, context - prompt))
        model, tokenizer = self._model, self._tokenizer
        return generate(model, tokenizer, chat, temperature=temperature, max_new_tokens=tokens).text


def _refusal(message: str) -> MlflowException:
    """Becomes HTTP 400 in MLflow's server. Azure's answers 500 to any exception and logs it."""
    return MlflowException.invalid_parameter_value(message)


set_model(ChatModel())
