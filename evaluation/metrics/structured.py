"""The metrics of structured answers that `--metric NAME` takes beside the user's own, and their schemas."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evaluation.metrics import structured_functions
from phi3flow.core.errors import BadInput
from phi3flow.core.files import read_json

SCHEMA_VALID = "schema_valid"
FILE = Path(structured_functions.__file__)


def read_schema(file: Path) -> Mapping[str, Any]:
    """A JSON schema. Raises BadInput for a file that holds none."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if not file.is_file():
        raise BadInput(f"--schema {file}: no such file", hint="check the path")
    try:
        schema = read_json(file)
        Draft202012Validator.check_schema(schema)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: is not JSON: {error}", hint="give a JSON schema") from None
    except SchemaError as error:
        what = f"{file}: is no JSON schema: {error.json_path}: {error.message[:200]}"
        raise BadInput(what, hint="correct it: https://json-schema.org/draft/2020-12") from None
    if not isinstance(schema, Mapping):
        raise BadInput(f"{file}: is no JSON schema: not an object", hint="give a JSON schema")
    return schema


class Row(Protocol):
    """A line of a test file, asked or not."""

    @property
    def schema(self) -> Mapping[str, Any] | None: ...


def require_schemas(rows: Sequence[Row], data: Path, schema: Mapping[str, Any] | None) -> None:
    """Raise BadInput with the first row that has no schema of its own where none is given for all."""
    if schema is not None:
        return
    for i, row in enumerate(rows):
        if row.schema is None:
            raise BadInput(
                f"{data}:{i + 1}: response_format: missing, and {SCHEMA_VALID} needs a schema for each row",
                hint="give one for all rows: --schema FILE",
            )
