"""A workspace of an emulated cloud to which recorded calls are sent, one recording at a time."""

import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import requests
from azure_emulator.arm.registrations import USED, register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator
from emulated import REGION
from recorded_calls import PLACEHOLDER, Answer, Call, Recording

GROUP = "recorded-group"
ARM = "https://management.azure.com"
API = "2024-04-01"
PATIENCE = 20
SERVER = (
    "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
)
RUNNING = {"InProgress", "Updating", "Accepted", "Running"}
ENDPOINT = {"location": REGION, "identity": {"type": "SystemAssigned"}, "properties": {"authMode": "Key"}}
CLUSTER = {"vmSize": "Standard_E4s_v3", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1}}
DEPLOYMENT = {
    "location": REGION,
    "sku": {"name": "Default", "capacity": 1},
    "properties": {
        "endpointComputeType": "Managed",
        "instanceType": "Standard_E4s_v3",
        "model": "{workspace}/models/tiny/versions/1",
        "environmentVariables": {"AZURE_EMULATOR_COMMAND": f'{sys.executable} -c "{SERVER}"'},
    },
}
JOB = {
    "properties": {
        "jobType": "Command",
        "command": "sleep 60",
        "environmentId": "{workspace}/environments/image/versions/1",
        "computeId": "{workspace}/computes/cluster",
    }
}
WORKSPACES = "{group_id}/providers/Microsoft.MachineLearningServices/workspaces"
FOUNDRY = {
    "location": REGION,
    "identity": {"type": "SystemAssigned"},
    "properties": {"storageAccount": "{storage}"},
}
TINY = "azureml://datastores/workspaceblobstore/paths/tiny/model.bin"
GIVEN: dict[str, tuple[str, Any]] = {
    "environment image": ("{workspace}/environments/image/versions/1", {"properties": {"image": "python"}}),
    "code scoring": ("{workspace}/codes/scoring/versions/1", {"properties": {"codeUri": "{blobs}/scoring"}}),
    "model tiny": (
        "{workspace}/models/tiny/versions/1",
        {"properties": {"modelUri": TINY, "modelType": "custom_model"}},
    ),
    "cluster": (
        "{workspace}/computes/cluster",
        {"location": REGION, "properties": {"computeType": "AmlCompute", "properties": CLUSTER}},
    ),
    "endpoint recorded-plain": ("{workspace}/onlineEndpoints/recorded-plain", ENDPOINT),
    "deployment blue": ("{workspace}/onlineEndpoints/recorded-plain/deployments/blue", DEPLOYMENT),
    "job running": ("{workspace}/jobs/running", JOB),
    "workspace short-lived": (
        f"{WORKSPACES}/short-lived",
        {"location": REGION, "properties": {"storageAccount": "{storage}"}},
    ),
    "deleted vault gone": ("{group_id}/providers/Microsoft.KeyVault/vaults/gone", {"location": REGION}),
    "data rows": (
        "{workspace}/data/rows/versions/1",
        {"properties": {"dataType": "uri_file", "dataUri": TINY}},
    ),
    "connection recorded": (
        "{workspace}/connections/recorded",
        {"properties": {"authType": "ApiKey", "category": "CustomKeys", "target": "t", "credentials": {}}},
    ),
    "hub recorded-hub": (f"{WORKSPACES}/recorded-hub", {**FOUNDRY, "kind": "hub"}),
    "project recorded-project": (
        f"{WORKSPACES}/recorded-project",
        {**FOUNDRY, "kind": "project", "properties": {"hubResourceId": f"{WORKSPACES}/recorded-hub"}},
    ),
}


class Replay:
    """Names stand in for the masked ids of a recording; they grow as answers name new things."""

    def __init__(self, emulator: Emulator, recording: Recording) -> None:
        self._emulator = emulator
        self._recording = recording
        made_of = re.sub("[^a-z]", "", recording.name)
        group = f"/subscriptions/{tokens.SUBSCRIPTION}/resourceGroups/{GROUP}"
        workspace = f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{recording.name}"
        self.names = {
            "subscription": tokens.SUBSCRIPTION,
            "user": tokens.OBJECT_ID,
            "group": GROUP,
            "group_id": group,
            "workspace": workspace,
            "workspace_name": recording.name,
            "location": REGION,
            "account": made_of,
            "storage": f"{group}/providers/Microsoft.Storage/storageAccounts/{made_of}",
        }
        self._prepare()

    def _prepare(self) -> None:
        """A workspace with storage, vault, insights and registry, and what else the recording needs."""
        names = self.names
        providers = f"{names['group_id']}/providers"
        parts = {
            "storageAccount": names["storage"],
            "keyVault": f"{providers}/Microsoft.KeyVault/vaults/{names['account']}",
            "applicationInsights": f"{providers}/Microsoft.Insights/components/{names['account']}",
            "containerRegistry": f"{providers}/Microsoft.ContainerRegistry/registries/{names['account']}",
        }
        register(self._emulator.cloud, *USED)
        self._make(names["group_id"], {"location": REGION})
        for resource_id in parts.values():
            self._make(resource_id, {"location": REGION})
        identity = {"type": "SystemAssigned"}
        self._make(names["workspace"], {"location": REGION, "identity": identity, "properties": parts})
        self._remember_storage()
        for wanted in self._recording.given:
            path, body = GIVEN[wanted]
            self._make(self._filled(path), self._filled_body(body))
        if "deleted vault gone" in self._recording.given:
            self._ask("DELETE", self._filled(GIVEN["deleted vault gone"][0]))

    def _remember_storage(self) -> None:
        names, store = self.names, f"{self.names['workspace']}/datastores/workspaceblobstore"
        found = self._ask("GET", store).json()["properties"]
        names["blobs"] = f"https://{found['accountName']}.blob.core.windows.net/{found['containerName']}"
        names["workspace_marker"] = found["containerName"].removeprefix("azureml-blobstore-")
        told = self._ask("POST", f"{store}/listSecrets", {"expirableSecret": True}).json()
        self._signature = told["sasToken"].lstrip("?")
        self._put_blob(f"{names['blobs']}/tiny/model.bin?{self._signature}", "weights", {})

    def answers(self) -> Iterator[tuple[Call, Answer]]:
        """Send each call in turn. An operation that was polled while it ran is held until then."""
        calls = self._recording.calls
        for call, following in zip(calls, [*calls[1:], None], strict=True):
            if call.polls:
                yield call, self._poll(call)
                continue
            if following and following.polls and not following.ends:
                self._hold(call)
            answer = self._send(call)
            self._remember(answer)
            yield call, answer
        self._release()

    def _poll(self, call: Call) -> Answer:
        if not call.ends:
            return self._send(call)
        self._release()
        deadline = time.monotonic() + PATIENCE
        while (answer := self._send(call)).body.get("status") in RUNNING:
            assert time.monotonic() < deadline, f"{call.name}: the operation never ends"
            time.sleep(0.05)
        return answer

    def _hold(self, call: Call) -> None:
        path = self._filled(call.path)
        self._set_faults([{"kind": "hold_operation", "method": call.method, "route": path}])

    def _release(self) -> None:
        self._set_faults([])

    def _set_faults(self, faults: list[dict[str, str]]) -> None:
        url = f"{self._emulator.url}/emulator/faults"
        requests.put(url, json={"faults": faults}, timeout=5).raise_for_status()

    def _send(self, call: Call) -> Answer:
        path = self._filled(call.path)
        if path.startswith("https://") and "blob.core" in path:
            return _answer(self._blob(call, path))
        query = {**({"api-version": call.api_version} if call.api_version else {}), **call.query}
        return _answer(self._ask(call.method, path, self._filled_body(call.send), query))

    def _blob(self, call: Call, url: str) -> requests.Response:
        signature = "" if "?" in url else f"?{self._signature}"
        url = f"{url}{signature}" + "".join(f"&{name}={value}" for name, value in call.query.items())
        if call.blob is not None:
            return self._put_blob(url, call.blob, {"If-None-Match": "*"})
        metadata = {f"x-ms-meta-{name}": value for name, value in call.metadata.items()}
        return requests.request(call.method, url, headers=metadata, timeout=5)

    def _put_blob(self, url: str, content: str, headers: dict[str, str]) -> requests.Response:
        return requests.put(
            url, content.encode(), headers={"x-ms-blob-type": "BlockBlob", **headers}, timeout=5
        )

    def _ask(self, method: str, path: str, body: Any = None, query: Any = None) -> requests.Response:
        url = path if path.startswith("https://") else f"{ARM}{path}"
        if query is None and "api-version" not in url:
            query = {"api-version": API}
        token = {"Authorization": f"Bearer {tokens.mint(ARM)}"}
        return requests.request(method, url, json=body, params=query, headers=token, timeout=10)

    def _make(self, resource_id: str, body: Any) -> None:
        """Put it and wait until it is settled."""
        made = self._ask("PUT", resource_id, body)
        assert made.status_code in {200, 201}, made.text
        deadline = time.monotonic() + PATIENCE
        while self._state(resource_id) in {"Creating", "Updating"}:
            assert time.monotonic() < deadline, f"{resource_id} never settles"
            time.sleep(0.05)

    def _state(self, resource_id: str) -> str:
        found = self._ask("GET", resource_id).json()
        return str((found.get("properties") or {}).get("provisioningState"))

    def _remember(self, answer: Answer) -> None:
        """What later calls name: where to poll, and where to upload."""
        if address := answer.headers.get("Azure-AsyncOperation"):
            self.names["operation"] = address
        if isinstance(answer.body, dict) and "blobReferenceForConsumption" in answer.body:
            place = answer.body["blobReferenceForConsumption"]
            self.names["upload"] = place["blobUri"]
            self.names["signed"] = place["credential"]["sasUri"]

    def _filled(self, text: str) -> str:
        """With names in the place of placeholders; a signed address keeps its signature at the end."""
        if text.startswith("{signed}"):
            address, _, signature = self.names["signed"].partition("?")
            return f"{address}{text.removeprefix('{signed}')}?{signature}"
        return PLACEHOLDER.sub(lambda match: self.names.get(match[1], match[0]), text)

    def _filled_body(self, body: Any) -> Any:
        if isinstance(body, str):
            return self._filled(body)
        if isinstance(body, list):
            return [self._filled_body(item) for item in body]
        if isinstance(body, dict):
            return {name: self._filled_body(value) for name, value in body.items()}
        return body


def _answer(response: requests.Response) -> Answer:
    try:
        body = response.json() if response.content else None
    except json.JSONDecodeError:
        body = response.text
    return Answer(response.status_code, response.headers, body)
