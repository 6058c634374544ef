"""Flows in the cloud: a resolved folder is uploaded once, and found by its content ever after."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from deploy.azure.shared.assets import staged
from deploy.azure.shared.names import OURS, is_ours
from deploy.azure.shared.plan import Cost, Look
from deploy.foundry.target import Target
from phi3flow.core.errors import Phi3flowError
from phi3flow.core.flow_folder import DAG, SHIPPED, resolve_flow, resolve_folder
from phi3flow.core.lineage import sha256_of

if TYPE_CHECKING:
    from promptflow.azure._entities._flow import Flow

CONTENT = "content"  # the tag that holds the hash of the resolved folder
CONTENT_LENGTH = 16
LISTED = 100  # as many as the index hands out


@dataclass(frozen=True)
class LocalFlow:
    """A flow's folder as it is uploaded: includes resolved, nothing else in it."""

    name: str
    folder: Path

    @cached_property
    def content(self) -> str:
        return sha256_of(self.folder)[:CONTENT_LENGTH]

    @property
    def shown_as(self) -> str:
        return f"phi3flow-{self.name}"


@contextmanager
def resolved(asked: str) -> Iterator[LocalFlow]:
    """The shipped flow of that name, or anybody's folder. Raises BadInput for a folder that is no flow."""
    name = Path(asked).name if Path(asked).is_dir() else asked
    with staged({}) as parent:
        folder = parent / name
        if asked in SHIPPED or not Path(asked).is_dir():
            resolve_flow(asked, folder)
        else:
            resolve_folder(Path(asked), folder)
        # The share's folder is called after this one and the second: two uploads must not meet there.
        yield LocalFlow(name, folder.rename(folder.with_name(f"{name}-{token_hex(4)}")))


def flow_type(folder: Path) -> str:
    """As the portal sorts them: a flow with a chat input is for chat, one that judges answers evaluates."""
    from ruamel.yaml import YAML

    dag = YAML(typ="safe").load(folder / DAG)
    inputs: dict[str, Any] = dag.get("inputs") or {}
    if any(one.get("is_chat_input") for one in inputs.values()):
        return "chat"
    aggregates = any(node.get("aggregation") for node in dag["nodes"])
    return "evaluation" if aggregates and "answer" in inputs else "standard"


def uploaded_flows(target: Target) -> "list[Flow]":
    """Ours that are not archived, the newest first."""
    found = target.pf.flows.list(max_results=LISTED, include_others=True)
    return [flow for flow in found if is_ours(flow.tags)]


def versions(target: Target, flow: LocalFlow) -> "tuple[Flow | None, list[Flow]]":
    """The uploaded flow with this very content, and those of its name with another."""
    named = [one for one in uploaded_flows(target) if one.display_name == flow.shown_as]
    same = [one for one in named if one.tags.get(CONTENT) == flow.content]
    return next(iter(same), None), [one for one in named if one not in same]


def require_flow(target: Target, name: str) -> str:
    """The id of the uploaded flow that has the content of ours here. Raises Phi3flowError."""
    with resolved(name) as flow:
        found, _ = versions(target, flow)
    if found is None:
        raise Phi3flowError(
            f"flow {name}, as it is here, is not in {target.name}", f"phi3flow foundry upload {name}"
        )
    return str(found.name)


def archive(target: Target, flow: str) -> None:
    """Take a flow off the portal's list: the service has no deletion, and restores what it archived."""
    from promptflow.azure._restclient.flow.models import PatchFlowRequest

    names, caller = target.cloud.names, target.pf.flows._service_caller
    caller.caller.flows.patch_flow(
        names.subscription,
        names.group,
        names.workspace,
        flow,
        experiment_id=target.pf.flows._workspace_id,
        body=PatchFlowRequest(flow_patch_operation_type="ArchiveFlow"),
        headers=caller._get_headers(),
    )


@dataclass(frozen=True)
class FlowUpload:
    """One flow as a step; an earlier content of it is archived once the new one is there."""

    target: Target
    flow: LocalFlow
    kind: str = "flow"
    cost: Cost = "free"
    urls: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.flow.name

    def look(self) -> Look:
        found, earlier = versions(self.target, self.flow)
        if found is not None:
            self.urls[self.name] = str(self.target.pf.flows.get(found.name).flow_portal_url)
            return Look("keep", "unchanged")
        return Look("update", "its content changed") if earlier else Look("create")

    def make(self) -> None:
        _, earlier = versions(self.target, self.flow)
        made = self.target.pf.flows.create_or_update(
            self.flow.folder,
            display_name=self.flow.shown_as,
            type=flow_type(self.flow.folder),
            tags={OURS: "upload", CONTENT: self.flow.content},
        )
        self.urls[self.name] = str(made.flow_portal_url)
        for one in earlier:
            archive(self.target, str(one.name))
