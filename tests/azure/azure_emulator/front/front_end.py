"""The front end of online endpoints: who may ask, which deployment answers, and what its failures become."""

import http.client
import threading
from collections.abc import Iterator

from azure_emulator.client import tokens
from azure_emulator.cloud import Cloud
from azure_emulator.endpoints import online_endpoints
from azure_emulator.endpoints.containers import Container
from azure_emulator.endpoints.probes import seconds
from azure_emulator.front.routing import Plane, Route
from azure_emulator.front.wire import Document, Reply, Request

PIN = "azureml-model-deployment"
DEFAULT_TIMEOUT_SECONDS = 5.0
READ_BYTES = 1 << 16
PASSED_ON = ("content-type", "accept", "x-request-id", "x-ms-client-request-id")
PASSED_BACK = ("content-type", "cache-control", "retry-after", "x-request-id")


def answer(cloud: Cloud, request: Request) -> Reply:
    endpoint = _find(cloud, request.host)
    if endpoint is None or not _may_ask(cloud, endpoint, request):
        return Reply(401, b"key_auth_bad_header_forbidden", {"Content-Type": "text/plain"})
    name = _choose(cloud, endpoint, request)
    if not name or cloud.store.get(f"{endpoint['id']}/deployments/{name}") is None:
        return Reply(404, b"no deployment takes this request", {"Content-Type": "text/plain"})
    _mirror(cloud, endpoint, request, name)
    return _ask(cloud, f"{endpoint['id']}/deployments/{name}", request)


def _find(cloud: Cloud, host: str) -> Document | None:
    name, location = host.split(".")[:2]
    endpoints = cloud.store.below("", kind=online_endpoints.KIND)
    return next((e for e in endpoints if e["name"].lower() == name and e["location"] == location), None)


def _may_ask(cloud: Cloud, endpoint: Document, request: Request) -> bool:
    """One of the two keys; a token of our tenant where the endpoint takes tokens."""
    if endpoint["properties"].get("authMode", "Key").lower() == "key":
        return request.bearer in online_endpoints.keys(cloud, endpoint["id"]).values()
    return not tokens.problem(request.bearer)


def _choose(cloud: Cloud, endpoint: Document, request: Request) -> str:
    """The pinned deployment, or the one whose turn it is: as often as its share."""
    if pinned := request.headers.get(PIN):
        return pinned
    shares = {name: share for name, share in endpoint["properties"]["traffic"].items() if share}
    return cloud.traffic.next_turn(endpoint["id"], shares) if shares else ""


def _mirror(cloud: Cloud, endpoint: Document, request: Request, chosen: str) -> None:
    """A copy of the request to the mirror, whose answer nobody sees."""
    for name, share in endpoint["properties"]["mirrorTraffic"].items():
        turn = {name: share, "": 100 - share}
        mirrored = cloud.traffic.next_turn(f"{endpoint['id']}/mirror", turn) if share else ""
        if mirrored and mirrored != chosen and not request.headers.get(PIN):
            deployment = f"{endpoint['id']}/deployments/{name}"
            thread = threading.Thread(target=_drain, args=(cloud, deployment, request), daemon=True)
            thread.start()


def _drain(cloud: Cloud, deployment_id: str, request: Request) -> None:
    body = _ask(cloud, deployment_id, request).body
    if isinstance(body, Iterator):
        for _ in body:
            pass


def _ask(cloud: Cloud, deployment_id: str, request: Request) -> Reply:
    name = deployment_id.rsplit("/", 1)[1]
    deployment, container = cloud.store.get(deployment_id), cloud.containers.find(deployment_id)
    if deployment is None or container is None:
        return _model_error(name, 503, "the container is not ready")
    settings = deployment["properties"].get("requestSettings") or {}
    if not cloud.traffic.enter(deployment_id, _limit(deployment, settings)):
        return Reply(429, b"too many requests", {"Content-Type": "text/plain", PIN: name})
    try:
        response, first = _open(
            container, request, seconds(settings.get("requestTimeout"), DEFAULT_TIMEOUT_SECONDS)
        )
    except TimeoutError:
        cloud.traffic.leave(deployment_id)
        return Reply(408, b"upstream request timeout", {"Content-Type": "text/plain", PIN: name})
    except (OSError, http.client.HTTPException) as error:
        cloud.traffic.leave(deployment_id)
        return _model_error(name, 502, type(error).__name__)
    return _passed_back(cloud, deployment_id, response, first)


def _limit(deployment: Document, settings: Document) -> int:
    """Azure lets in twice the concurrent requests that the instances together may have."""
    instances = int((deployment.get("sku") or {}).get("capacity") or 1)
    return 2 * int(settings.get("maxConcurrentRequestsPerInstance") or 1) * instances


def _open(container: Container, request: Request, timeout: float) -> tuple[http.client.HTTPResponse, bytes]:
    """The response and the first bytes of its body. The caller's key stays here."""
    headers = {name: request.headers[name] for name in PASSED_ON if request.headers.get(name)}
    headers["Connection"] = "close"  # its socket then ends with the response
    if container.serving.key:
        headers["Authorization"] = f"Bearer {container.serving.key}"
    query = request.target.partition("?")[2]
    path = request.path + (f"?{query}" if query else "")
    connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=timeout)
    connection.request(request.method, path, request.body or None, headers)
    response = connection.getresponse()
    return response, response.read1(READ_BYTES)


def _passed_back(cloud: Cloud, deployment_id: str, response: http.client.HTTPResponse, first: bytes) -> Reply:
    name = deployment_id.rsplit("/", 1)[1]
    headers = {key: value for key, value in response.getheaders() if key.lower() in PASSED_BACK} | {PIN: name}
    if response.status == 200:
        return Reply(200, _pieces(cloud, deployment_id, response, first), headers)
    body = first + response.read()
    cloud.traffic.leave(deployment_id)
    reason = response.reason or "error"
    blamed = {
        "ms-azureml-model-error-statuscode": str(response.status),
        "ms-azureml-model-error-reason": reason,
    }
    return Reply(424, body, {**headers, **blamed})


def _pieces(
    cloud: Cloud, deployment_id: str, response: http.client.HTTPResponse, first: bytes
) -> Iterator[bytes]:
    try:
        yield first
        while piece := response.read1(READ_BYTES):
            yield piece
    finally:
        response.close()
        cloud.traffic.leave(deployment_id)


def _model_error(name: str, status: int, reason: str) -> Reply:
    blamed = {"ms-azureml-model-error-statuscode": str(status), "ms-azureml-model-error-reason": reason}
    return Reply(424, reason.encode(), {"Content-Type": "text/plain", PIN: name, **blamed})


ROUTES = [Route(method, Plane.SCORING, "/{path*}", answer, serial=False) for method in ("GET", "POST")]
