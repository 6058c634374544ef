"""What Agent Framework cannot take over is named with its line and what replaces it. Needs no environment."""

import pytest

from agents.unmovable import unmovable
from phi3flow.app.commands.migrate import check
from phi3flow.app.flow_hosts import agents_python
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.flow_folder import SHIPPED, resolve_flow
from phi3flow.core.settings import Settings

DAG = """\
inputs:
  question:
    type: string
  picture:
    type: image
outputs:
  answer:
    type: string
    reference: ${say.output}
nodes:
- name: draft
  type: llm
  source:
    type: code
    path: draft.jinja2
- name: find
  type: python
  source:
    type: package
    tool: promptflow.tools.serpapi.SerpAPI.search
- name: say
  type: python
  source:
    type: code
    path: say.py
  inputs:
    question: ${inputs.question}
  activate:
    when: ${inputs.question}
    is: hi
"""
SAY = """\
import helper
from promptflow.core import tool
from promptflow.client import PFClient


@tool
def say(question: str) -> str:
    from promptflow.tools.openai import chat

    return question
"""


@pytest.fixture
def flow(tmp_path):
    (tmp_path / "flow.dag.yaml").write_text(DAG)
    (tmp_path / "say.py").write_text(SAY)
    (tmp_path / "helper.py").write_text("import say\nfrom promptflow.entities import Run\n")
    return tmp_path


def test_every_part_is_named_with_its_line(flow):
    found = [(each.file.name, each.line, each.what, each.stops) for each in unmovable(flow)]
    assert found == [
        ("flow.dag.yaml", 5, "input 'picture' is of type image", True),
        ("flow.dag.yaml", 12, "node 'draft' is of type llm", True),
        (
            "flow.dag.yaml",
            18,
            "node 'find' is the tool promptflow.tools.serpapi.SerpAPI.search of a package",
            True,
        ),
        ("helper.py", 2, "imports promptflow.entities.Run", True),
        ("say.py", 3, "imports promptflow.client.PFClient", True),
        ("say.py", 8, "imports promptflow.tools.openai.chat", False),
        ("flow.dag.yaml", 28, "node 'say' has 'activate'", True),
    ]
    assert all(each.instead for each in unmovable(flow))


def test_our_flows_move_but_for_the_judge(tmp_path):
    found = {name: unmovable(resolve_flow(name, tmp_path / name)) for name in SHIPPED}
    assert [each.what for each in found.pop("grade")] == ["imports promptflow.tools.openai.chat"]
    assert not any(found.values())


def test_a_missing_environment_is_named_with_the_command_that_builds_it(tmp_path):
    with pytest.raises(Phi3flowError, match="nowhere is missing") as raised:
        agents_python(Settings(agents_environment=tmp_path / "nowhere"))
    assert raised.value.hint.startswith("make -C ") and raised.value.hint.endswith(" agents")


def test_a_check_without_data_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setenv("PHI3FLOW_AGENTS_ENVIRONMENT", str(tmp_path))
    with pytest.raises(BadInput, match="--data: missing"):
        check()
