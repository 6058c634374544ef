"""Data sets of the Hugging Face hub, turned into the lines a JSONL file would hold.

`datasets` runs no code of the data set's author (scripts are gone since its version 4).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from phi3flow.core.errors import BadInput, Phi3flowError, first_line

EXAMPLE = "'HuggingFaceH4/ultrachat_200k[train_sft[:1%]]'"
_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:\[(?P<split>.+)\])?")


def looks_like_id(source: str) -> bool:
    """ORG/NAME, with or without [split]. A missing file in a folder looks the same, but for its suffix."""
    return bool(_ID.fullmatch(source)) and not source.endswith((".jsonl", ".json"))


def load(source: str) -> Iterable[dict[str, Any]]:
    """Download `ORG/NAME[split]`. Raises BadInput for what was asked, Phi3flowError for the network."""
    matched = _ID.fullmatch(source)
    if not matched or not matched["split"]:
        raise BadInput(
            f"{source}: no such file, and no split for a hub data set", hint=f"name the split: {EXAMPLE}"
        )
    name, split = matched["id"], matched["split"]
    import httpx
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    try:
        rows: Iterable[dict[str, Any]] = load_dataset(name, split=split)
    except DatasetNotFoundError as error:
        raise _not_found(name, gated="is a gated dataset" in str(error)) from error
    except (ConnectionError, httpx.HTTPError) as error:
        raise _unreachable(source) from error
    except DatasetGenerationError as error:
        raise BadInput(f"{source}: its files cannot be read as one table", hint=_page(name)) from error
    except (ValueError, FileNotFoundError) as error:  # unknown split or configuration, no data files
        raise BadInput(f"{source}: {first_line(error)}", hint=_page(name)) from error
    except RuntimeError as error:
        # huggingface_hub 1.21 answers a refused connection by trying again on the client it has closed.
        if "client has been closed" in str(error):
            raise _unreachable(source) from error
        if "scripts are no longer supported" in str(error):
            raise BadInput(f"{source}: {first_line(error)}", hint=_page(name)) from error
        raise
    return rows


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Each row as one line of JSON, so that hub rows pass the very checks a file's lines pass."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, default=str).encode()


def sha256_of_rows(rows: Iterable[dict[str, Any]]) -> str:
    """The hash the rows would have as a JSONL file: the same rows are the same input."""
    digest = hashlib.sha256()
    for line in lines(rows):
        digest.update(line + b"\n")
    return digest.hexdigest()


def _unreachable(source: str) -> Phi3flowError:
    return Phi3flowError(
        f"{source}: the hub cannot be reached", hint="check the network, or download the file and name it"
    )


def _not_found(name: str, *, gated: bool) -> BadInput:
    if gated:
        return BadInput(
            f"{name}: the data set is gated", hint=f"accept its terms, then run hf auth login; {_page(name)}"
        )
    return BadInput(
        f"{name}: no such public data set on the hub",
        hint=f"check the name, or run hf auth login; {_page(name)}",
    )


def _page(name: str) -> str:
    return f"see https://huggingface.co/datasets/{name}"
