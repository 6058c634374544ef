"""Endpoints and deployments: who answers, whose turn it is, and what goes wrong, as clients see it."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.ai.ml import MLClient
from azure.ai.ml.entities import ManagedOnlineDeployment, ManagedOnlineEndpoint, Model, OnlineRequestSettings
from azure.core.exceptions import HttpResponseError
from azure_emulator.emulator import Emulator

SERVER = """
import http.server, json, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, "ok")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("asked at", self.path, flush=True)
        time.sleep(body.get("sleep", 0))
        if body.get("die"):
            os._exit(1)
        key = self.headers.get("Authorization", "")
        self.answer(body.get("status", 200), json.dumps({"name": sys.argv[2], "key": key, "path": self.path}))

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
Deploy = Callable[..., ManagedOnlineDeployment]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("server") / "tiny_server.py"
    path.write_text(SERVER)
    return path


@pytest.fixture
def deploy(ml: MLClient, server: Path, tmp_path: Path) -> Deploy:
    """Make a deployment of the tiny server, or of another command."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    ml.models.create_or_update(Model(name="tiny", version="1", path=str(tmp_path / "model")))

    def make(endpoint: str, name: str, told: str = "", **options: Any) -> ManagedOnlineDeployment:
        text = options.pop("command", f"{sys.executable} {server} {{port}} {told or name}")
        wanted = ManagedOnlineDeployment(
            name=name,
            endpoint_name=endpoint,
            model="azureml:tiny:1",
            environment="azureml:image:1",
            instance_type="Standard_E4s_v3",
            instance_count=1,
            environment_variables={"AZURE_EMULATOR_COMMAND": text},
            **options,
        )
        return ml.online_deployments.begin_create_or_update(wanted).result()

    return make


class Client:
    def __init__(self, ml: MLClient, name: str) -> None:
        self.url = ml.online_endpoints.get(name).scoring_uri
        self.key = ml.online_endpoints.get_keys(name).primary_key

    def ask(self, body: dict[str, Any] | None = None, *, path: str = "", **headers: str) -> requests.Response:
        sent = {"Authorization": f"Bearer {self.key}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        url = self.url.removesuffix("/score") + path if path else self.url
        return requests.post(url, json=body or {}, headers=sent, timeout=10)


def make_endpoint(ml: MLClient, name: str) -> None:
    ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=name, auth_mode="key")).result()


def set_traffic(ml: MLClient, name: str, mirror: dict[str, int] | None = None, **shares: int) -> None:
    endpoint = ml.online_endpoints.get(name)
    endpoint.traffic, endpoint.mirror_traffic = shares, mirror or {}
    ml.online_endpoints.begin_create_or_update(endpoint).result()


def test_a_rollout_from_one_deployment_to_the_next(ml: MLClient, deploy: Deploy) -> None:
    make_endpoint(ml, "rollout")
    deploy("rollout", "blue")
    client = Client(ml, "rollout")
    assert client.ask().status_code == 404
    assert client.ask(azureml_model_deployment="blue").json()["name"] == "blue"
    set_traffic(ml, "rollout", blue=100)
    deploy("rollout", "green")
    assert Counter(client.ask().json()["name"] for _ in range(10)) == {"blue": 10}
    set_traffic(ml, "rollout", blue=90, green=10)
    assert Counter(client.ask().json()["name"] for _ in range(20)) == {"blue": 18, "green": 2}
    assert client.ask(path="/v1/chat/completions").json()["path"] == "/v1/chat/completions"
    with pytest.raises(HttpResponseError, match="has traffic"):
        ml.online_deployments.begin_delete(name="blue", endpoint_name="rollout").result()
    set_traffic(ml, "rollout", blue=0, green=100)
    ml.online_deployments.begin_delete(name="blue", endpoint_name="rollout").result()
    assert [item.name for item in ml.online_deployments.list("rollout")] == ["green"]
    ml.online_endpoints.begin_delete("rollout").result()
    assert client.ask().status_code == 401


def log_of_green(ml: MLClient) -> str:
    return str(ml.online_deployments.get_logs(name="green", endpoint_name="mirrored", lines=50))


def test_a_mirror_gets_copies_and_nobody_sees_its_answers(ml: MLClient, deploy: Deploy) -> None:
    make_endpoint(ml, "mirrored")
    deploy("mirrored", "blue")
    deploy("mirrored", "green")
    set_traffic(ml, "mirrored", {"green": 50}, blue=100)
    client = Client(ml, "mirrored")
    assert Counter(client.ask().json()["name"] for _ in range(6)) == {"blue": 6}
    deadline = time.monotonic() + 5
    while log_of_green(ml).count("asked") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ml.online_endpoints.begin_delete("mirrored").result()


def test_keys_open_until_they_are_regenerated_and_stay_outside(
    azure: Emulator, ml: MLClient, deploy: Deploy
) -> None:
    make_endpoint(ml, "keyed")
    deploy("keyed", "blue")
    set_traffic(ml, "keyed", blue=100)
    client = Client(ml, "keyed")
    old = client.key
    assert client.ask().json()["key"] == ""
    assert client.ask(Authorization="Bearer wrong").status_code == 401
    ml.online_endpoints.begin_regenerate_keys("keyed", key_type="primary").result()
    assert client.ask().status_code == 401
    client = Client(ml, "keyed")
    assert client.ask().status_code == 200
    written = (azure.folder / "requests.jsonl").read_text()
    assert old not in written and client.key not in written and "Bearer" not in written
    ml.online_endpoints.begin_delete("keyed").result()


def test_a_container_that_crashes_fails_its_deployment_and_leaves_a_log(ml: MLClient, deploy: Deploy) -> None:
    make_endpoint(ml, "crashing")
    with pytest.raises(HttpResponseError) as raised:
        deploy("crashing", "blue", command=f"{sys.executable} -c 'raise SystemExit(\"no weights\")'")
    assert raised.value.error.code == "ResourceNotReady"
    assert "no weights" in ml.online_deployments.get_logs(name="blue", endpoint_name="crashing", lines=20)
    assert ml.online_deployments.get("blue", "crashing").provisioning_state == "Failed"
    with pytest.raises(HttpResponseError, match="which is Failed"):
        set_traffic(ml, "crashing", blue=100)
    assert deploy("crashing", "blue").provisioning_state == "Succeeded"
    ml.online_endpoints.begin_delete("crashing").result()


def test_an_update_that_never_becomes_ready_leaves_the_old_version_serving(
    ml: MLClient, deploy: Deploy
) -> None:
    make_endpoint(ml, "updated")
    deploy("updated", "blue", "first")
    set_traffic(ml, "updated", blue=100)
    client = Client(ml, "updated")
    with pytest.raises(HttpResponseError):
        deploy("updated", "blue", command="false")
    assert client.ask().json()["name"] == "first"
    deploy("updated", "blue", "second")
    assert client.ask().json()["name"] == "second"
    ml.online_endpoints.begin_delete("updated").result()


def test_no_cores_left_is_out_of_quota(azure: Emulator, ml: MLClient, deploy: Deploy) -> None:
    url = f"{azure.url}/emulator/quota"
    make_endpoint(ml, "poor")
    requests.put(url, json={"standardESv3Family": 0}, timeout=5).raise_for_status()
    try:
        with pytest.raises(HttpResponseError) as raised:
            deploy("poor", "blue")
    finally:
        requests.put(url, json={"standardESv3Family": 100}, timeout=5).raise_for_status()
    assert raised.value.error.code == "OutOfQuota"
    ml.online_endpoints.begin_delete("poor").result()


def test_what_a_container_does_wrong_comes_back_as_azure_says_it(ml: MLClient, deploy: Deploy) -> None:
    make_endpoint(ml, "wrong")
    deploy("wrong", "blue", request_settings=OnlineRequestSettings(request_timeout_ms=300))
    set_traffic(ml, "wrong", blue=100)
    client = Client(ml, "wrong")
    refused = client.ask({"status": 400})
    assert refused.status_code == 424
    assert refused.headers["ms-azureml-model-error-statuscode"] == "400"
    assert client.ask({"sleep": 2}).status_code == 408
    assert client.ask({"die": True}).status_code == 424
    ml.online_endpoints.begin_delete("wrong").result()
