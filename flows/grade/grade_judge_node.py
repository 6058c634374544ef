"""The grade flow's optional judge: promptflow-tools' OpenAI tool, once the node is given a connection.

Without one it says nothing, and promptflow-tools need not be installed. To switch it on, name a connection of
type OpenAI in this node's input `connection`; `phi3flow evaluate --judge NAME` does so in its own copy.
"""

from functools import partial

from grade_judge import SILENT, grade_answer
from promptflow.connections import OpenAIConnection
from promptflow.core import tool
from promptflow.exceptions import PromptflowException


@tool
def judge(
    *,
    question: str,
    answer: str,
    reference: str,
    model: str,
    seconds: float,
    connection: OpenAIConnection = None,
) -> dict:
    """A judge that fails costs its grade, not the line."""
    if connection is None:
        return SILENT
    from promptflow.tools.openai import chat

    ask = partial(chat, connection, model=model, temperature=0, max_tokens=64)
    try:
        return grade_answer(ask, question, reference, answer, seconds=seconds)
    except PromptflowException as error:
        return {"grade": None, "error": f"the judge failed ({type(error).__name__})"}
