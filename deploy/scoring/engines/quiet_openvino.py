"""OpenVINO without its telemetry: importing it reports to Intel unless the user's home says otherwise."""

import sys


def silence_openvino() -> None:
    """Call before anything imports openvino or nncf: without openvino_telemetry both use their own stubs."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
