"""The container of a flow: its image holds what the host needs, and Azure knows every field of its app."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from azure.ai.ml import load_online_deployment, load_online_endpoint
from both_hosts import ENVIRONMENT, ROOT, needs_agents
from ruamel.yaml import YAML
from scripted_endpoint import KEY, scripted_endpoint

CONTAINER = ROOT / "agents" / "container"
MOST_REQUESTS = int(
    re.search(r"^MOST_REQUESTS = (\d+)", (ROOT / "agents" / "server.py").read_text(), re.MULTILINE)[1]
)
REFERENCE = {"name", "keyVaultUrl", "identity"}  # of a secret that stays in the key vault
DOCKERFILE = (CONTAINER / "Dockerfile").read_text()
EXPOSED = int(re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)[1])
ASK = """
import json, sys
from pathlib import Path
from agents.host import served_app
app = served_app(Path.cwd(), anywhere=True)
client = app.test_client()
key = {"Authorization": "Bearer flow-key"}
asked = {"json": {"question": "hi"}, "base_url": "https://phi3-chat.example.azurecontainerapps.io"}
told = [client.get("/health").status_code, client.post("/score", **asked).status_code]
answer = client.post("/score", headers=key, **asked)
packages = {"phi3flow", "agents"}
ours = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] in packages]
print(json.dumps([*told, answer.json, ours]))
"""


WITHOUT_A_KEY = """
from pathlib import Path
from agents.host import served_app
client = served_app(Path.cwd(), anywhere=True).test_client()
print(client.post("/score", json={"question": "hi"}, base_url="https://phi3-chat-flow.inference.ml.azure.com").data)
"""


@pytest.fixture(scope="module")
def app():
    return YAML(typ="safe").load(CONTAINER / "container-app.yaml")


@pytest.fixture(scope="module")
def online():
    return load_online_deployment(CONTAINER / "online-deployment.yaml")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The folders /app and /flow of the image, made by the file's own COPY and RUN lines."""
    root = tmp_path_factory.mktemp("image")
    text = DOCKERFILE.replace("${FLOW}", re.search(r"ARG FLOW=(\S+)", DOCKERFILE)[1])
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            copied = root / "app" / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, copied, dirs_exist_ok=True)
            else:
                copied.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, copied)
    resolve = re.search(r'^RUN python -c "(.*)"$', text, re.MULTILINE)[1]
    python(root, "-c", resolve.replace("'/flow'", f"'{root / 'flow'}'"), at="app")
    return root


def python(image, *arguments, at, **environment):
    return subprocess.run(
        [ENVIRONMENT / "bin" / "python", *arguments],
        cwd=image / at,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(image / "app"), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


@needs_agents
def test_what_the_image_copies_answers_under_any_name_and_only_with_the_key(image):
    with scripted_endpoint() as server:
        said = {"configs": {"endpoint": server.url(), "contract": "openai"}, "secrets": {"key": KEY}}
        secrets = {
            "PHI3FLOW_FLOW_KEY": "flow-key",
            "PHI3FLOW_CONNECTIONS": json.dumps({"phi3-tuned": said}),
        }
        health, refused, answer, files = json.loads(python(image, "-c", ASK, at="flow", **secrets))
    assert (health, refused, answer) == (200, 401, {"answer": "user: hi "})
    assert [file for file in files if not Path(file).is_relative_to(image)] == [], "an image has nothing else"


@needs_agents
def test_behind_the_front_end_of_a_managed_online_endpoint_it_asks_for_no_key(image, online):
    with scripted_endpoint() as server:
        said = {"configs": {"endpoint": server.url(), "contract": "openai"}, "secrets": {"key": KEY}}
        variables = online.environment_variables | {"PHI3FLOW_CONNECTIONS": json.dumps({"phi3-tuned": said})}
        assert "user: hi" in python(image, "-c", WITHOUT_A_KEY, at="flow", **variables)
        del variables["PHI3FLOW_KEY_CHECKED_BY"]
        with pytest.raises(subprocess.CalledProcessError) as refused:
            python(image, "-c", WITHOUT_A_KEY, at="flow", **variables)
    assert "PHI3FLOW_FLOW_KEY is not set" in refused.value.stderr


def test_the_managed_online_endpoint_is_the_images_and_holds_no_secret(online):
    endpoint = load_online_endpoint(CONTAINER / "online-endpoint.yaml")
    assert (endpoint.name, endpoint.auth_mode) == (online.endpoint_name, "key")
    assert endpoint.identity.type == "system_assigned"
    (connection,) = json.loads(online.environment_variables["PHI3FLOW_CONNECTIONS"]).values()
    assert (connection["configs"]["auth"], "secrets" in connection) == ("entra", False)
    routes = online.environment.inference_config
    three = (routes.liveness_route, routes.readiness_route, routes.scoring_route)
    assert [(route.port, route.path) for route in three] == [
        (EXPOSED, "/health"),
        (EXPOSED, "/health"),
        (EXPOSED, "/score"),
    ]
    assert 2 * online.request_settings.max_concurrent_requests_per_instance <= MOST_REQUESTS


def test_azure_knows_every_field_of_the_container_app(app):
    """Read with the models of Azure's client: they take unknown fields, so every field is looked up."""
    models = pytest.importorskip("azure.mgmt.appcontainers.models", reason="make install")
    assert list(unknown_fields(models.ContainerApp(app))) == []
    misspelled = {"properties": {"configuration": {"ingress": {"targetport": 1}}}}
    assert list(unknown_fields(models.ContainerApp(misspelled))) == ["targetport"]


def unknown_fields(model):
    """The keys that are no fields of a model or of the models in it."""
    fields = {field._rest_name: name for name, field in type(model)._attr_to_rest_field.items()}
    yield from set(model) - set(fields)
    for key in set(model) & set(fields):
        value = getattr(model, fields[key])
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Mapping) and hasattr(each, "_attr_to_rest_field"):
                yield from unknown_fields(each)


def test_it_scales_to_zero_and_holds_no_secret(app):
    configuration, template = app["properties"]["configuration"], app["properties"]["template"]
    (container,) = template["containers"]
    assert template["scale"]["minReplicas"] == 0
    assert configuration["ingress"]["allowInsecure"] is False
    by_reference = {secret["name"] for secret in configuration["secrets"] if set(secret) == REFERENCE}
    asked = {each["name"]: each.get("secretRef") for each in container["env"]}
    assert {asked["PHI3FLOW_FLOW_KEY"], asked["PHI3FLOW_CONNECTIONS"]} == by_reference
    (identity,) = app["identity"]["userAssignedIdentities"]
    users = [*configuration["secrets"], *configuration["registries"]]
    assert {each["identity"] for each in users} == {identity}


def test_ports_and_probes_are_the_images(app):
    (container,) = app["properties"]["template"]["containers"]
    ports = {probe["httpGet"]["port"] for probe in container["probes"]}
    ports.add(app["properties"]["configuration"]["ingress"]["targetPort"])
    assert ports == {EXPOSED}
    assert {probe["httpGet"]["path"] for probe in container["probes"]} == {"/health"}
