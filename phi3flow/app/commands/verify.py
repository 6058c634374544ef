"""`phi3flow verify`: the gate between a deployment and its traffic."""

import argparse
from pathlib import Path

from phi3flow.app.given_endpoint import checked_arguments, contract_of
from phi3flow.core.console import Outcome
from phi3flow.core.errors import BadInput
from phi3flow.core.settings import Settings

SENTENCE = "Check that an endpoint serves the model that was trained, as it was trained."
EXAMPLE = "phi3flow verify runs/demo/tuned --endpoint http://127.0.0.1:5001/v1/chat/completions"
FILE = "verify.json"


def add_arguments(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="the folder that train wrote")
    parser.add_argument("--endpoint", required=True, metavar="URL", help="full scoring URL")
    parser.add_argument(
        "--contract",
        metavar="C",
        help="A, B, openai or promptflow (default: openai for a URL that ends in /chat/completions, else B)",
    )
    parser.add_argument("--deployment", metavar="D", help="pin one deployment behind an Azure ML endpoint")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="test.jsonl: judge a quantised model by its exact match"
    )
    parser.add_argument(
        "--exact-match", type=float, metavar="X", help="of the fp32 model on --data, such as 0.97"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"where {FILE} goes (default: the folder that holds MODEL)"
    )
    parser.epilog = "The key comes from PHI3FLOW_ENDPOINT_KEY. Exit 0: all six pass; 4: some not checkable."


def run(args: argparse.Namespace, settings: Settings) -> Outcome:
    from deploy.verify.exact_match import Reference
    from deploy.verify.gate import verify
    from phi3flow.core.files import write_json
    from phi3flow.phi3_contract import Endpoint, Unauthorized

    if (args.data is None) != (args.exact_match is None):
        raise BadInput("--data and --exact-match belong together", hint=f"{EXAMPLE} --data F --exact-match X")
    if args.exact_match is not None and not 0 <= args.exact_match <= 1:
        raise BadInput(
            "--exact-match: must be a share from 0 to 1", hint="report.json has it: tuned.exact_match"
        )
    contract = args.contract or contract_of(args.endpoint)
    with checked_arguments():
        endpoint = Endpoint(args.endpoint, settings.endpoint_key, contract, deployment=args.deployment)
    reference = Reference(args.data, args.exact_match) if args.data else None
    try:
        found = verify(args.model, endpoint, reference, settings.batch_workers)
    except Unauthorized as error:
        what = str(error) if endpoint.key else "the endpoint asks for a key, and no key is set"
        raise Unauthorized(what, "export PHI3FLOW_ENDPOINT_KEY=... with the endpoint's key") from None
    path = (args.out or args.model.resolve().parent) / FILE
    write_json(path, found.as_dict())
    text = "\n".join([*map(str, found.checks), f"{found.result}: {path}"])
    return Outcome(found.as_dict() | {"path": str(path)}, text, found.exit_code)
