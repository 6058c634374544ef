"""Online endpoints and deployments as steps, and asking one deployment by its name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.azure.shared.names import EXPIRES, OURS, is_ours
from deploy.azure.shared.plan import Cost, Look
from deploy.azure.shared.session import Cloud, existing
from phi3flow.core.console import say
from phi3flow.core.errors import BadInput, Phi3flowError, first_line
from phi3flow.core.polling import poll
from phi3flow.phi3_contract import ENTRA, Endpoint

DEFAULT_DAYS = 3
MOVING = {"creating", "updating", "deleting", "scaling"}
LOG_LINES = 50
FILES = {"openvino": "deployment-cpu.yaml", "vllm": "deployment-gpu.yaml"}
VERIFIED = "verified"  # the endpoint's tag that names the deployment which passed
AUTH_MODES = {"key": "key", "entra": "aad_token"}


def today() -> date:
    return datetime.now(UTC).date()


def find_endpoint(cloud: Cloud, name: str) -> Any | None:
    return existing(cloud.ml.online_endpoints.get, name)


def find_deployment(cloud: Cloud, endpoint: str, name: str) -> Any | None:
    return existing(cloud.ml.online_deployments.get, name, endpoint)


def settled(cloud: Cloud, find: Callable[[], Any | None], what: str) -> Any | None:
    """What `find` finds, once it is not changing: Azure may still be working for an interrupted run."""

    def look() -> tuple[Any | None] | None:
        found = find()
        return None if found is not None and _state(found) in MOVING else (found,)

    try:
        (found,) = poll(look, seconds=cloud.patience)
    except TimeoutError:
        raise Phi3flowError(f"{what} is still changing", "phi3flow azure status") from None
    return found


def put_endpoint(cloud: Cloud, endpoint: Any) -> None:
    """Traffic and tags in one write: they change together or not at all."""
    poller = cloud.ml.online_endpoints.begin_create_or_update(endpoint)
    cloud.finish(poller, f"endpoint {endpoint.name}")


def _unless_foreign(found: Any | None, kind: str, name: str) -> Any | None:
    """Raises Phi3flowError for a thing without our tag that stands where ours should."""
    if found is not None and not is_ours(found.tags):
        raise Phi3flowError(
            f"{kind} {name} exists and is not phi3flow's (it has no tag phi3flow)",
            "choose another PHI3FLOW_AZURE_WORKSPACE, or remove it yourself",
        )
    return found


def _state(found: Any) -> str:
    return str(found.provisioning_state).lower()


@dataclass(frozen=True)
class OnlineEndpoint:
    """`days` until it expires: None keeps the date it has, or takes the default."""

    cloud: Cloud
    name: str
    auth: str
    days: int | None
    kind: str = "endpoint"
    cost: Cost = "free"

    def _find(self) -> Any | None:
        found = find_endpoint(self.cloud, self.name)
        return found if self._given else _unless_foreign(found, self.kind, self.name)

    @property
    def _given(self) -> bool:
        return self.name == self.cloud.names.given.endpoint

    def _expires(self, found: Any | None) -> str:
        known = (found.tags or {}).get(EXPIRES) if found is not None else None
        if known and self.days is None:
            return str(known)
        return (today() + timedelta(days=DEFAULT_DAYS if self.days is None else self.days)).isoformat()

    def look(self) -> Look:
        found = self._find()
        if self._given:
            if found is None:
                raise BadInput(
                    f"there is no endpoint {self.name}", "make it, or unset PHI3FLOW_AZURE_ENDPOINT"
                )
            return Look("keep", "given: used as it is, without an expiry date")
        if found is None:
            return Look("create", f"expires {self._expires(None)}")
        if _state(found) != "succeeded":
            return Look("update", f"it is {found.provisioning_state}")
        expires = self._expires(found)
        if found.tags.get(EXPIRES) != expires:
            return Look("update", f"expires {found.tags.get(EXPIRES)} -> {expires}")
        return Look("keep", f"expires {expires}")

    def make(self) -> None:
        found = settled(self.cloud, self._find, f"endpoint {self.name}")
        endpoint = found if found is not None else self._new()
        endpoint.tags = {**(endpoint.tags or {}), OURS: "deploy", EXPIRES: self._expires(found)}
        put_endpoint(self.cloud, endpoint)

    def _new(self) -> Any:
        from azure.ai.ml.entities import (
            IdentityConfiguration,
            ManagedIdentityConfiguration,
            ManagedOnlineEndpoint,
        )

        identity = ManagedIdentityConfiguration(resource_id=self.cloud.names.identity_id)
        return ManagedOnlineEndpoint(
            name=self.name,
            auth_mode=AUTH_MODES[self.auth],
            identity=IdentityConfiguration(type="user_assigned", user_assigned_identities=[identity]),
        )


@dataclass(frozen=True)
class OnlineDeployment:
    """One version behind an endpoint; it takes no traffic until it is promoted.

    `file` is the user's own in the place of the engine's; name, model, size and code are ours.
    """

    cloud: Cloud
    endpoint: str
    name: str
    engine: str
    model: str
    size: str
    code: Path
    tags: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    kind: str = "deployment"
    cost: Cost = "by the hour"

    def _find(self) -> Any | None:
        found = find_deployment(self.cloud, self.endpoint, self.name)
        return _unless_foreign(found, self.kind, self.name)

    def look(self) -> Look:
        found = self._find()
        if found is None:
            return Look("create", f"{self.size}, 0 % of the traffic")
        state = _state(found)
        return Look("keep") if state == "succeeded" else Look("update", f"it is {state}")

    def make(self) -> None:
        found = settled(self.cloud, self._find, f"deployment {self.name}")
        operations = self.cloud.ml.online_deployments
        if found is not None and _state(found) == "succeeded":
            return
        if found is not None:
            say(f"removing deployment {self.name}, whose creation had failed")
            self.cloud.finish(operations.begin_delete(self.name, self.endpoint), f"removing {self.name}")
        with showing_log(self.cloud, self.endpoint, self.name):
            poller = operations.begin_create_or_update(self._wanted(), skip_script_validation=True)
            self.cloud.finish(poller, f"deployment {self.name}")

    @property
    def machines(self) -> int:
        return int(settings_in(self._file).instance_count or 1)

    @property
    def _file(self) -> Path:
        return self.file or Path(str(files("deploy.azure.container.deployments"))) / FILES[self.engine]

    def _wanted(self) -> Any:
        wanted = settings_in(self._file)
        wanted.name, wanted.endpoint_name = self.name, self.endpoint
        wanted.model, wanted.instance_type = f"azureml:{self.model}", self.size
        wanted.tags = dict(self.tags)
        wanted.environment_variables = {**(wanted.environment_variables or {}), **self.variables}
        if wanted.code_configuration:
            wanted.code_configuration.code = str(self.code)
        return wanted


def settings_in(file: Path) -> Any:
    """A deployment as its file describes it. Raises BadInput for a file that azure-ai-ml cannot read."""
    from azure.ai.ml import load_online_deployment

    if not file.is_file():
        raise BadInput(
            f"{file}: no such file", "copy deployment-gpu.yaml of deploy/azure/container/deployments"
        )
    try:
        return load_online_deployment(source=file)
    except Exception as error:  # any: it raises its own, marshmallow's and the YAML reader's
        raise BadInput(
            f"{file}: not a deployment file: {first_line(error)}", "compare it with ours"
        ) from None


@contextmanager
def showing_log(cloud: Cloud, endpoint: str, deployment: str) -> Iterator[None]:
    """Whatever fails inside, the container's log says more: its end is shown before the error goes on."""
    try:
        yield
    except Exception:  # any: it is raised again
        show_log(cloud, endpoint, deployment)
        raise


def show_log(cloud: Cloud, endpoint: str, deployment: str) -> None:
    """The end of the container's log on stderr, where there is one."""
    from azure.core.exceptions import AzureError

    try:
        text = cloud.ml.online_deployments.get_logs(deployment, endpoint, lines=LOG_LINES)
    except AzureError as error:
        say(f"(no log of {deployment}: {type(error).__name__})")
        return
    say(f"the end of {deployment}'s log:\n" + "\n".join(f"  | {line}" for line in text.splitlines()))


def ask_at(cloud: Cloud, endpoint: str, deployment: str | None) -> Endpoint:
    """The endpoint as clients see it, pinned to one deployment; its key stays in memory.

    Deployment `verified` is the one that passed last. Raises Phi3flowError where there is no endpoint.
    """
    found = find_endpoint(cloud, endpoint)
    if found is None:
        raise Phi3flowError(f"there is no endpoint {endpoint}", "phi3flow azure deploy makes it")
    if deployment == VERIFIED:
        deployment = (found.tags or {}).get(VERIFIED)
    wanted = find_deployment(cloud, endpoint, deployment) if deployment else None
    engine = ((wanted.tags or {}) if wanted else (found.tags or {})).get("engine", "openvino")
    url = url_of(str(found.scoring_uri), engine)
    if found.auth_mode == AUTH_MODES[ENTRA]:  # the key says so to whoever looks into the connection
        return Endpoint(url, ENTRA, "openai", deployment=deployment, auth=ENTRA)
    key = str(cloud.ml.online_endpoints.get_keys(endpoint).primary_key)
    return Endpoint(url, key, "openai", deployment=deployment)


def url_of(scoring_uri: str, engine: str) -> str:
    """Our scoring script takes every contract at /score; vLLM has OpenAI's own path."""
    if engine != "vllm":
        return scoring_uri
    parts = urlsplit(scoring_uri)
    return f"{parts.scheme}://{parts.netloc}/v1/chat/completions"
