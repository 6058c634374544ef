"""`phi3flow serve`: a model folder behind HTTP."""

import argparse
import math
import socket
from pathlib import Path

from phi3flow.app.model_folder import require_model_folder
from phi3flow.core.console import Outcome, say
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

SENTENCE = "Serve a model folder over HTTP, in the foreground; Ctrl-C finishes what runs and stops."
EXAMPLE = "phi3flow serve runs/demo/tuned"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model folder, such as train writes")
    parser.add_argument(
        "--port",
        type=int,
        default=settings.endpoint_port,
        metavar="P",
        help=f"0 takes a free one (default {settings.endpoint_port})",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--request-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds for one answer (default 120)",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "transformers", "openvino"],
        default="auto",
        help="auto: openvino for a folder that export wrote, else transformers",
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="one or two keys, one a line, read again when it changes (default: PHI3FLOW_ENDPOINT_KEY)",
    )
    parser.epilog = "Clients give the key PHI3FLOW_ENDPOINT_KEY as their bearer token."


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    require_model_folder(args.model)
    if not (settings.endpoint_key or args.key_file):
        raise BadInput(
            "no key: PHI3FLOW_ENDPOINT_KEY is not set",
            hint='eval "$(phi3flow env)", or export PHI3FLOW_ENDPOINT_KEY=..., or --key-file FILE',
        )
    if not (math.isfinite(args.request_timeout) and args.request_timeout > 0):
        raise BadInput("--request-timeout: must be a number of seconds above 0", hint=EXAMPLE)
    bound = _bind(args.host, args.port)
    url = f"http://{args.host}:{bound.getsockname()[1]}"
    say(f"loading {args.model} ...")

    from deploy.scoring.http.auth import KeyFile
    from deploy.scoring.server import serve

    key = KeyFile(args.key_file) if args.key_file else settings.endpoint_key
    serve(
        args.model,
        bound,
        key=key,
        request_timeout=args.request_timeout,
        announce=lambda: _announce(args.model, url),
        engine=args.engine,
    )
    return Outcome({"model": str(args.model), "url": url})


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


def _announce(model: Path, url: str) -> None:
    name = model.resolve().name
    connection = f"phi3-{name}" if name in {"base", "tuned"} else "phi3-tuned"
    say(
        f"ready: {name}\n"
        f"  contract openai   {url}/v1/chat/completions\n"
        f"  contracts A, B    {url}/score\n"
        f"next: phi3flow connect {connection} --endpoint {url}/v1/chat/completions --contract openai"
    )
