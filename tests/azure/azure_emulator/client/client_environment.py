"""How clients reach the emulator: by environment variables alone, and a stand-in `az` on their PATH."""

import json
import os
import shlex
import sys
from pathlib import Path

from azure_emulator.client.tokens import SUBSCRIPTION, TENANT

STAND_IN = Path(__file__).with_name("stand_in_az.py")
# Left over from a real cloud, these would lead a credential past the emulator.
FORGOTTEN = (
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
)


def variables(folder: Path, url: str, authority: Path) -> dict[str, str]:
    """To be put over the client's own environment; an empty value means that the variable has to go."""
    bypass = "127.0.0.1,localhost"
    return {
        "HTTPS_PROXY": url,
        "HTTP_PROXY": url,
        "https_proxy": url,
        "http_proxy": url,
        "NO_PROXY": bypass,
        "no_proxy": bypass,
        "REQUESTS_CA_BUNDLE": str(authority),
        "SSL_CERT_FILE": str(authority),
        "CURL_CA_BUNDLE": str(authority),
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", os.defpath)]),
        "AZURE_TOKEN_CREDENTIALS": "AzureCliCredential",
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        **dict.fromkeys(FORGOTTEN, ""),
    }


def write(folder: Path, values: dict[str, str]) -> None:
    """`environment.json` for programs, `environment.sh` for `source`, and `bin/az`."""
    (folder / "environment.json").write_text(json.dumps(values, indent=2) + "\n")
    lines = [
        f"export {name}={_shell_value(folder, name, value)}" if value else f"unset {name}"
        for name, value in values.items()
    ]
    (folder / "environment.sh").write_text("\n".join(lines) + "\n")
    stand_in = folder / "bin" / "az"
    stand_in.parent.mkdir(exist_ok=True)
    source = STAND_IN.read_text().replace("SUBSCRIPTION_ID", SUBSCRIPTION).replace("TENANT_ID", TENANT)
    stand_in.write_text(f"#!{sys.executable} -IS\n{source}")  # it imports nothing but the standard library
    stand_in.chmod(0o755)


def _shell_value(folder: Path, name: str, value: str) -> str:
    return f"{shlex.quote(str(folder / 'bin'))}:$PATH" if name == "PATH" else shlex.quote(value)
