"""Show 3: schemathesis asks the endpoint, as its OpenAPI document describes it, and no default check fails.

It has an environment of its own, which `make schemathesis` makes.
"""

import subprocess
from pathlib import Path

import pytest
from instant_engine import instant_endpoint
from tiny import KEY, new_tokenizer

SCHEMATHESIS = Path(__file__).parents[2] / ".venv-schemathesis" / "bin" / "st"
CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 100  # of each route

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="make schemathesis"),
]


def test_show_3_the_endpoint_has_no_failure(tmp_path):
    with instant_endpoint(new_tokenizer()) as url:
        ran = subprocess.run(
            [
                *(SCHEMATHESIS, f"--config-file={CONFIG}", "run", f"{url}/openapi.json", "--no-color"),
                *("--header", f"Authorization: Bearer {KEY}", f"--max-examples={EXAMPLES}"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-1000:]
