"""The formats of `phi3flow export`, and which of them a folder is in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.export.adapter import Adapter
from deploy.export.exporter import Exporter
from deploy.export.gguf.exporter import Gguf
from deploy.export.onnx import Onnx
from deploy.export.openvino import OpenVino
from deploy.scoring.load import load
from deploy.scoring.loopback import on_loopback
from phi3flow.phi3_contract import Endpoint

EXPORTERS: tuple[Exporter, ...] = (OpenVino(), Gguf(), Onnx(), Adapter())
FORMATS: Mapping[str, Exporter] = {exporter.name: exporter for exporter in EXPORTERS}


@contextmanager
def served_here(folder: Path) -> Iterator[Endpoint]:
    """An export behind HTTP, through its own runtime; a model folder through our engine.

    Raises Phi3flowError for a missing package, BadInput for a folder that is neither.
    """
    exporter = next((each for each in EXPORTERS if each.owns(folder)), None)
    opened = exporter.serving(folder) if exporter else on_loopback(load(folder, lambda: None), folder.name)
    with opened as endpoint:
        yield endpoint
