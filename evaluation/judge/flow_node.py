"""Switches on the grade flow's judge node, with an OpenAI-compatible endpoint as the judge."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from phi3flow.core.errors import BadInput
from phi3flow.core.flow_folder import DAG
from phi3flow.phi3_contract import Endpoint

JUDGE = "phi3-judge"
NODE = "judge"
TOOLS = "promptflow-tools"
CHAT_PATH = "/chat/completions"


def check_judge(judge: Endpoint) -> str:
    """The base URL for OpenAI's clients, which add the path. Raises BadInput for another contract."""
    if judge.contract != "openai" or not judge.url.endswith(CHAT_PATH):
        raise BadInput(
            "the judge must have contract openai",
            hint=f"phi3flow connect NAME --contract openai --endpoint https://HOST/v1{CHAT_PATH}",
        )
    return judge.url.removesuffix(CHAT_PATH)


def give_judge(flow: Path, judge: Endpoint) -> None:
    """Switch on the judge node of a resolved grade flow. Raises BadInput if promptflow-tools is missing."""
    from ruamel.yaml import YAML

    try:
        version(TOOLS)
    except PackageNotFoundError:
        raise BadInput(f"{TOOLS} is not installed", hint=f"pip install {TOOLS}") from None
    yaml = YAML()
    dag = yaml.load(flow / DAG)
    inputs = next(node["inputs"] for node in dag["nodes"] if node["name"] == NODE)
    inputs |= {"connection": JUDGE, "model": judge.model or "phi3", "seconds": judge.timeout}
    with (flow / DAG).open("w", encoding="utf-8") as stream:
        yaml.dump(dag, stream)


def store_judge(judge: Endpoint) -> None:
    """Store the judge as a connection of type OpenAI, in the Prompt flow home that was entered."""
    from promptflow.client import PFClient
    from promptflow.entities import OpenAIConnection

    connection = OpenAIConnection(name=JUDGE, api_key=judge.key, base_url=check_judge(judge))
    PFClient().connections.create_or_update(connection)
