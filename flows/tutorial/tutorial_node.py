"""The flow of Microsoft's Phi-3 tutorials, by their names and settings, so that their clients keep working.

One question, no history; temperature 0.7 and at most 128 tokens, as the tutorials' code asks.
"""

from phi3_contract import Endpoint, Sampling
from promptflow.connections import CustomConnection
from promptflow.core import tool

AS_IN_THE_TUTORIALS = Sampling(temperature=0.7, max_tokens=128)


@tool
def my_python_tool(input_data: str, connection: CustomConnection) -> str:
    endpoint = Endpoint.from_connection(connection.configs, connection.secrets)
    return endpoint.complete([{"role": "user", "content": input_data}], AS_IN_THE_TUTORIALS)
