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
    if not file.is_file():
        raise BadInput(f"--schema {file}: no such file", hint="check the path")
    try:
        schema = read_json(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: is not JSON: {error}", hint="give a JSON schema") from None
    _check(schema, str(file))
    if not isinstance(schema, Mapping):
        raise BadInput(f"{file}: is no JSON schema: not an object", hint="give a JSON schema")
    return schema


def _check(schema: Any, where: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        what = f"{where}: is no JSON schema: {error.json_path}: {error.message[:200]}"
        raise BadInput(what, hint="correct it: https://json-schema.org/draft/2020-12") from None


class Row(Protocol):
    """A line of a test file, asked or not."""

    @property
    def schema(self) -> Mapping[str, Any] | None: ...


def require_schemas(rows: Sequence[Row], data: Path, schema: Mapping[str, Any] | None) -> None:
    """Raise BadInput with the first row whose own schema is none, or missing where none is given for all."""
    checked: set[str] = set()  # rows often have the same
    for i, row in enumerate(rows):
        if row.schema is None and schema is None:
            raise BadInput(
                f"{data}:{i + 1}: response_format: missing, and {SCHEMA_VALID} needs a schema for each row",
                hint="give one for all rows: --schema FILE",
            )
        if row.schema is not None and (told := json.dumps(row.schema)) not in checked:
            _check(row.schema, f"{data}:{i + 1}: response_format")
            checked.add(told)
