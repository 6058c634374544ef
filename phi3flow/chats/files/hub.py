"""Data sets of the Hugging Face hub, as the lines of a JSONL file.

`datasets` runs no code of a data set's author: version 4 removed scripts.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from phi3flow.core.errors import BadInput, Phi3flowError, first_line, translating

EXAMPLE = "'HuggingFaceH4/ultrachat_200k[train_sft[:1%]]'"
_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?(?:\[(?P<split>.+)\])?")
_FILE_ENDING = re.compile(r"\.(jsonl?|ndjson|[ct]sv|xlsx|parquet|arrow|feather|gz|bz2|xz|zip|txt)$")


def looks_like_id(source: str) -> bool:
    """Whether this is ORG/NAME, with or without :config and [split]. FOLDER/FILE.jsonl is a missing file."""
    return bool(_ID.fullmatch(source)) and not _FILE_ENDING.search(source)


def load(source: str) -> Iterable[dict[str, Any]]:
    """Download `ORG/NAME:CONFIG[split]`; without a configuration, the default one.

    Raises BadInput for a bad request, Phi3flowError for network problems.
    """
    matched = _ID.fullmatch(source)
    if not matched or not matched["split"]:
        raise BadInput(
            f"{source}: no such file, and no split for a hub data set", hint=f"name the split: {EXAMPLE}"
        )
    from datasets import load_dataset

    with _loading(source, matched["id"], matched["split"]):
        rows: Iterable[dict[str, Any]] = load_dataset(
            matched["id"], matched["config"], split=matched["split"]
        )
    return rows


def _loading(source: str, name: str, split: str) -> AbstractContextManager[None]:
    """Turn the errors of `datasets` and the hub client into one sentence and what to do."""
    import httpx
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    page = f"see https://huggingface.co/datasets/{name}"

    def not_found(error: Exception) -> Exception:
        if "is a gated dataset" in str(error):
            hint = f"accept its terms, then run hf auth login; {page}"
            return BadInput(f"{name}: the data set is gated", hint=hint)
        hint = f"check the name, or run hf auth login; {page}"
        return BadInput(f"{name}: no such public data set on the hub", hint=hint)

    def unreachable(error: Exception) -> Exception:
        return Phi3flowError(
            f"{source}: the hub cannot be reached", hint="check the network, or download the file and name it"
        )

    def unreadable(error: Exception) -> Exception:
        return BadInput(f"{source}: its files cannot be read as one table", hint=page)

    def as_said(error: Exception) -> Exception:  # unknown split or configuration, no data files
        if "Config name is missing" in str(error):
            listed = re.search(r"configs: \[(.*?)\]", str(error), re.DOTALL)
            known = re.findall(r"'([\w.-]+)'", listed[1] if listed else "")
            hint = f"name one: '{name}:{known[0] if known else 'CONFIG'}[{split}]'"
            return BadInput(f"{name}: has several configurations: {', '.join(known)}", hint=hint)
        return BadInput(f"{source}: {first_line(error)}", hint=page)

    def other(error: Exception) -> Exception:
        # huggingface_hub 1.21 reports a refused connection by retrying on the client that it has closed.
        if "client has been closed" in str(error):
            return unreachable(error)
        return as_said(error) if "scripts are no longer supported" in str(error) else error

    return translating(
        {DatasetNotFoundError: not_found, DatasetGenerationError: unreadable}
        | dict.fromkeys((ConnectionError, httpx.HTTPError), unreachable)
        | dict.fromkeys((ValueError, FileNotFoundError), as_said)
        | {RuntimeError: other}
    )


def lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Each row as one line of JSON, so that hub rows get the same checks as the lines of a file."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False, default=str).encode()


def sha256_of_rows(rows: Iterable[dict[str, Any]]) -> str:
    """The hash that the rows would have as a JSONL file, so that the same rows are the same input."""
    digest = hashlib.sha256()
    for line in lines(rows):
        digest.update(line + b"\n")
    return digest.hexdigest()
