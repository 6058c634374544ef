"""`phi3flow serve`: a model folder behind HTTP."""

import math
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from typer import Argument, Option

from phi3flow.app.run_folder import require_model_folder
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

if TYPE_CHECKING:
    from deploy.scoring.engine import Engine


def serve(
    model: Annotated[Path, Argument(metavar="MODEL", help="A model folder, such as train writes.")],
    *,
    port: Annotated[
        int | None,
        Option(metavar="P", help="Port to listen on; 0 takes a free one (default: {endpoint_port})."),
    ] = None,
    host: Annotated[str, Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    request_timeout: Annotated[float, Option(metavar="S", help="Seconds for one answer.")] = 120.0,
    engine: Annotated[
        Literal["auto", "transformers", "openvino", "onnx"],
        Option(help="auto: openvino or onnx for a folder that export wrote, else transformers."),
    ] = "auto",
    cache_gb: Annotated[
        float | None,
        Option(
            metavar="GB",
            help="Memory for keys and values (default: a third of what a GPU has free, 4.3 on a CPU).",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="One or two keys, one a line, read again when it changes (default: PHI3FLOW_ENDPOINT_KEY).",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        Option(
            metavar="ORIGIN",
            help="Let web pages of this origin ask too (CORS), such as http://localhost:3000; repeatable "
            "(default: none).",
        ),
    ] = None,
) -> Outcome:
    """Serve a model folder over HTTP, until Ctrl-C.

    example: phi3flow serve runs/demo/tuned

    Clients send the key PHI3FLOW_ENDPOINT_KEY as their bearer token. Ctrl-C lets running answers finish.
    """
    settings = Settings.load()
    require_model_folder(model)
    if not (settings.endpoint_key or key_file):
        raise BadInput(
            "no key: PHI3FLOW_ENDPOINT_KEY is not set",
            hint='eval "$(phi3flow env)", or export PHI3FLOW_ENDPOINT_KEY=..., or --key-file FILE',
        )
    if not (math.isfinite(request_timeout) and request_timeout > 0):
        raise BadInput(
            "--request-timeout: must be a number of seconds above 0", hint=f"phi3flow serve {model}"
        )
    if cache_gb is not None and not (math.isfinite(cache_gb) and cache_gb > 0):
        raise BadInput("--cache-gb: must be a number of GB above 0", hint=f"phi3flow serve {model}")
    for origin in cors or []:
        _check_origin(origin)
    bound = _bind(host, settings.endpoint_port if port is None else port)
    url = f"http://{host}:{bound.getsockname()[1]}"
    say(f"loading {model} ...")

    from deploy.scoring.http.auth import KeyFile
    from deploy.scoring.server import serve

    serve(
        model,
        bound,
        key=KeyFile(key_file) if key_file else settings.endpoint_key,
        request_timeout=request_timeout,
        announce=lambda served: _announce(model, url, served),
        engine=engine,
        cache_bytes=None if cache_gb is None else int(cache_gb * 1e9),
        origins=cors or (),
    )
    return Outcome({"model": str(model), "url": url})


def _check_origin(origin: str) -> None:
    """Raise BadInput for what no browser sends as the origin of a page."""
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or "*" in origin:
        raise BadInput(
            f"--cors {origin}: not the origin of a page", hint="scheme, host and port: http://localhost:3000"
        )


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio switches Nagle's delay off only where the protocol is named: 40 ms an answer otherwise.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(2048)
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            hint=f"choose another --port, such as --port {port + 10 if 0 < port < 65000 else 5011}",
        ) from None
    return bound


def _announce(model: Path, url: str, engine: "Engine") -> None:
    name = model.resolve().name
    connection = f"phi3-{name}" if name in {"base", "tuned"} else "phi3-tuned"
    say(
        f"ready: {name}\n"
        f"  contract openai   {url}/v1/chat/completions\n"
        f"  contracts A, B    {url}/score\n"
        f"  memory            {engine.memory}\n"
        f"next: phi3flow connect {connection} --endpoint {url}/v1/chat/completions --contract openai"
    )
