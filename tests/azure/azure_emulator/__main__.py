"""Start the emulator in the foreground; Ctrl-C or SIGTERM stops it and everything it runs."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from azure_emulator.emulator import PHASE_SECONDS, Emulator, Options
from azure_emulator.front.faults import Fault


def main() -> int:
    args = _arguments()
    faults = [Fault.parse(item) for item in json.loads(args.faults.read_text())] if args.faults else []
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with Emulator(Options(args.state, args.port, args.phase_seconds, args.resolve)) as emulator:
        emulator.cloud.faults.set(faults)
        place = {"url": emulator.url, "environment": str(emulator.folder / "environment.sh")}
        print(json.dumps(place), flush=True)
        print(f"next: source {place['environment']}", file=sys.stderr)
        stop.wait()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m azure_emulator", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="what exists is kept here")
    parser.add_argument("--port", type=int, default=0, help="default: the one of last time, or a free one")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="a JSON array of faults")
    parser.add_argument(
        "--phase-seconds",
        type=float,
        default=PHASE_SECONDS,
        help=f"how long an operation lasts (default {PHASE_SECONDS})",
    )
    parser.add_argument(
        "--resolve", action="store_true", help="have pip resolve environments: a network, and minutes"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
