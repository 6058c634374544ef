"""Faults happen to the request that was named, once, and the emulated cloud outlives the emulator."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.mgmt.resource.resources import ResourceManagementClient
from azure_emulator.arm.registrations import USED, register
from azure_emulator.client import tokens
from azure_emulator.emulator import Emulator, Options
from azure_emulator.endpoints import online_endpoints
from azure_emulator.front.faults import Fault
from emulated import QUIET, UserCredential, child_environment, client_of

GROUP = f"/subscriptions/{tokens.SUBSCRIPTION}/resourceGroups/faulty"
SPACE = f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/space"
MAKE_GROUP = """
from azure.identity import DefaultAzureCredential
from azure.mgmt.resource.resources import ResourceManagementClient
ResourceManagementClient(DefaultAzureCredential(), "SUBSCRIPTION").resource_groups.create_or_update(
    "faulty", {"location": "eastus2"}
)
print("made")
"""


@pytest.fixture
def cloud(tmp_path: Path, isolated: None) -> Iterator[Emulator]:
    with Emulator(Options(tmp_path / "state")) as running, client_of(running):
        register(running.cloud, *USED)
        yield running


def client(**options: Any) -> ResourceManagementClient:
    return ResourceManagementClient(UserCredential(), tokens.SUBSCRIPTION, **options)


def make_group(**options: Any) -> None:
    client(**options).resource_groups.create_or_update("faulty", {"location": "eastus2"})


def put(resource_id: str, **body: Any) -> Any:
    """By plain Resource Manager, as fast as can be."""
    sent = {"location": "eastus2", **body}
    return (
        client().resources.begin_create_or_update_by_id(resource_id, sent, api_version="2024-04-01").result()
    )


def make_workspace() -> None:
    make_group()
    storage = f"{GROUP}/providers/Microsoft.Storage/storageAccounts/faultystore"
    put(storage)
    put(SPACE, properties={"storageAccount": storage})


def answers(cloud: Emulator) -> list[tuple[str, int, str]]:
    return [(entry.method, entry.status, entry.fault) for entry in cloud.cloud.log.entries]


def test_the_sdk_waits_out_a_429_and_repeats(cloud: Emulator) -> None:
    fault = {"kind": "error", "method": "PUT", "status": 429, "code": "TooManyRequests", "retry_after": 0.05}
    requests.put(f"{cloud.url}/emulator/faults", json={"faults": [fault]}, timeout=5).raise_for_status()
    make_group()
    assert answers(cloud) == [("PUT", 429, "error"), ("PUT", 201, "")]


def test_a_fault_hits_the_nth_match_and_so_many_after_it(cloud: Emulator) -> None:
    refused = Fault("error", method="PUT", nth=2, times=2, status=403, code="AuthorizationFailed")
    cloud.cloud.faults.set([refused])
    make_group()
    for _ in range(2):
        with pytest.raises(HttpResponseError, match="AuthorizationFailed"):
            make_group()
    make_group()
    assert [status for _, status, _ in answers(cloud)] == [201, 403, 403, 200]


@pytest.mark.parametrize(("when", "made"), [("before", False), ("after", True)])
def test_a_dropped_connection_was_carried_out_or_not(cloud: Emulator, when: str, made: bool) -> None:
    cloud.cloud.faults.set([Fault("drop", method="PUT", when=when)])
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        make_group(retry_total=0)
    assert (cloud.cloud.store.get(GROUP) is not None) is made


def test_the_client_is_killed_right_after_its_call_and_can_start_again(cloud: Emulator) -> None:
    cloud.cloud.faults.set([Fault("signal", method="PUT", when="after")])
    command = [sys.executable, "-c", MAKE_GROUP.replace("SUBSCRIPTION", tokens.SUBSCRIPTION)]

    def run() -> "subprocess.CompletedProcess[bytes]":
        environment = child_environment(cloud)
        return subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True)

    assert run().returncode == -signal.SIGKILL
    assert cloud.cloud.store.get(GROUP)
    assert run().stdout == b"made\n"
    assert [status for method, status, _ in answers(cloud) if method == "PUT"] == [201, 200]


def test_an_operation_fails_or_never_ends(cloud: Emulator) -> None:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    make_workspace()
    ml = MLClient(UserCredential(), tokens.SUBSCRIPTION, "faulty", "space", **QUIET)
    endpoint = {"method": "PUT", "route": "*/onlineendpoints/*"}
    fails = Fault("fail_operation", **endpoint, code="OutOfQuota", message="none left")
    cloud.cloud.faults.set([fails, Fault("hold_operation", **endpoint, nth=2)])
    with pytest.raises(HttpResponseError, match="none left"):
        ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="failing")).result()
    assert ml.online_endpoints.get("failing").provisioning_state == "Failed"
    poller = ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="hanging"))
    poller.wait(0.5)
    assert not poller.done()
    assert ml.online_endpoints.get("hanging").provisioning_state == "Creating"
    with pytest.raises(HttpResponseError, match="Already running"):
        ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="hanging")).result()
    requests.put(f"{cloud.url}/emulator/faults", json={"faults": []}, timeout=5).raise_for_status()
    assert poller.result().provisioning_state == "Succeeded"


def test_what_is_not_emulated_is_refused_and_logged(cloud: Emulator) -> None:
    headers = {"Authorization": f"Bearer {tokens.mint('any')}"}
    url = "https://management.azure.com/subscriptions/any/unheard-of"
    assert requests.get(url, headers=headers, timeout=5).status_code == 501
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://example.invalid/", timeout=5)
    unknown = requests.get(f"{cloud.url}/emulator/requests?unknown=1", timeout=5).json()
    assert [(entry["host"], entry["status"]) for entry in unknown] == [
        ("management.azure.com", 501),
        ("example.invalid", 502),
    ]


def test_a_fault_that_cannot_be_is_refused(cloud: Emulator) -> None:
    for fault in ({"kind": "explode"}, {"kind": "drop", "when": "later"}, {"method": "PUT"}, "drop"):
        answer = requests.put(f"{cloud.url}/emulator/faults", json={"faults": [fault]}, timeout=5)
        assert answer.status_code == 400


def test_a_killed_emulator_comes_back_at_the_same_address_with_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "azure_emulator", "--state", str(tmp_path), "--phase-seconds", "0.5"]
    folder = Path(__file__).parent

    def start() -> tuple["subprocess.Popen[str]", str]:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        return process, json.loads(process.stdout.readline())["url"]

    process, url = start()
    session = requests.Session()
    session.trust_env = False  # a REQUESTS_CA_BUNDLE would win over `verify`
    session.proxies, session.verify = {"https": url}, str(tmp_path / "authority.pem")
    session.headers["Authorization"] = f"Bearer {tokens.mint('arm')}"
    group = f"https://management.azure.com{GROUP}"
    try:
        session.put(group, json={"location": "eastus2"}).raise_for_status()
        session.delete(group).raise_for_status()
        process.kill()
        process.wait()
        process, again = start()
        assert again == url
        assert session.get(group).status_code == 200
        deadline = time.monotonic() + 10
        while session.get(group).status_code != 404:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_after_a_restart_deployments_serve_again(tmp_path: Path, isolated: None) -> None:
    endpoint, python = f"{SPACE}/onlineEndpoints/lasting", sys.executable
    variables = {"AZURE_EMULATOR_COMMAND": f"{python} -m http.server {{port}} --bind 127.0.0.1"}
    url = "https://lasting.eastus2.inference.ml.azure.com/"

    def ask(running: Emulator) -> int:
        key = online_endpoints.keys(running.cloud, endpoint)["primaryKey"]
        return requests.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=5).status_code

    with Emulator(Options(tmp_path)) as running, client_of(running):
        register(running.cloud, *USED)
        make_workspace()
        put(endpoint, properties={"authMode": "Key"})
        properties = {"instanceType": "Standard_E4s_v3", "environmentVariables": variables}
        put(f"{endpoint}/deployments/blue", properties=properties)
        put(endpoint, properties={"authMode": "Key", "traffic": {"blue": 100}})
        assert ask(running) == 200
    with Emulator(Options(tmp_path)) as running, client_of(running):
        deadline = time.monotonic() + 10
        while ask(running) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
