"""A Prompt flow home inside the project, and the environment variables that select it.

By default Prompt flow writes to the user's home folder, sends telemetry, asks the package index for newer
versions and starts a trace service on port 23333. In this home it does none of these.
"""

import os
from pathlib import Path

from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import write_json, write_text
from phi3flow.core.settings import Settings

KEYRING = "custom_connections.env_keyring.EnvKeyring"
CONFIG = "telemetry:\n  enabled: false\ntrace:\n  destination: none\n"
VERSION_CHECK = "pf_version_check.json"
LONG_FROM_NOW = "2999-01-01 00:00:00.000000"  # as the time of the last check: the next one is never due
QUIET = {
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "OTEL_SDK_DISABLED": "true",
    "PF_LOGGING_LEVEL": "CRITICAL",  # at ERROR it prints tracebacks for errors that we report anyway
    "PF_TRACING_SKIP_LOCAL_SETUP": "true",
}


def prepare_home(folder: Path) -> None:
    """Write the home's two configuration files unless they exist.

    `pf config set` cannot do this: it sends telemetry before it turns telemetry off.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config, versions = folder / "pf.yaml", folder / VERSION_CHECK
    if not config.exists():
        write_text(config, CONFIG)
    if not versions.exists():
        write_json(versions, {"last_check_time": LONG_FROM_NOW, "last_hint_time": LONG_FROM_NOW})


def environment(folder: Path, encryption_key: str, workers: int = 16) -> dict[str, str]:
    """The variables that make `pf` use the home in `folder`.

    With an empty `encryption_key`, Prompt flow takes the key from the machine's keyring. `workers` is the
    number of lines that a batch run processes at once.
    """
    variables = {**QUIET, "PF_HOME_DIRECTORY": str(folder.resolve()), "PF_WORKER_COUNT": str(workers)}
    if encryption_key:
        variables |= {"PYTHON_KEYRING_BACKEND": KEYRING, "PF_ENCRYPTION_KEY": encryption_key}
    return variables


def new_encryption_key() -> str:
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def enter_home(settings: Settings) -> None:
    """Make this process use the project's home. Call it before anything imports promptflow.

    Sets `os.environ`, because Prompt flow reads its home from there at import and passes it to its workers.
    Raises BadInput for a malformed encryption key, Phi3flowError if there is neither a key nor a keyring.
    """
    if settings.encryption_key:
        _check_key(settings.encryption_key)
    elif not has_keyring():
        raise Phi3flowError(
            "this machine has no keyring, and PF_ENCRYPTION_KEY is not set", hint='eval "$(phi3flow env)"'
        )
    prepare_home(settings.promptflow_home)
    os.environ.update(environment(settings.promptflow_home, settings.encryption_key, settings.batch_workers))


def enter_home_without_store(settings: Settings) -> None:
    """The same for work in the cloud, which reads no local connection and so needs no keyring."""
    prepare_home(settings.promptflow_home)
    os.environ.update(environment(settings.promptflow_home, "", settings.batch_workers))


def _check_key(encryption_key: str) -> None:
    from cryptography.fernet import Fernet

    try:
        Fernet(encryption_key)
    except ValueError:
        raise BadInput(
            "PF_ENCRYPTION_KEY is not a Fernet key (32 bytes in url-safe base64)",
            hint='unset PF_ENCRYPTION_KEY; eval "$(phi3flow env)"',
        ) from None


def has_keyring() -> bool:
    """Whether this machine has a keyring; the fail backend and `EnvKeyring` do not count."""
    import keyring
    from keyring.backends.fail import Keyring as NoKeyring

    from custom_connections.env_keyring import EnvKeyring

    return not isinstance(keyring.get_keyring(), NoKeyring | EnvKeyring)
