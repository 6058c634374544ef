"""A keyring for machines without one: reads Prompt flow's encryption key from `PF_ENCRYPTION_KEY`.

Selected with `PYTHON_KEYRING_BACKEND=custom_connections.env_keyring.EnvKeyring`. The key stays in the
environment of the shell that ran `phi3flow env`; only ciphertext is written to disk. Every process of `pf`
loads this module, so it imports nothing else of the project.
"""

import os

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError, PasswordSetError

VARIABLE = "PF_ENCRYPTION_KEY"


class EnvKeyring(KeyringBackend):
    """Read-only; knows one secret, Prompt flow's encryption key."""

    priority = 0.5  # below every real keyring, in case it is discovered rather than selected

    def get_password(self, service: str, username: str) -> str | None:
        return os.environ.get(VARIABLE) if (service, username) == ("promptflow", "encryption_key") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise PasswordSetError(f'{VARIABLE} is not set; run: eval "$(phi3flow env)"')

    def delete_password(self, service: str, username: str) -> None:
        raise PasswordDeleteError(f"unset {VARIABLE} to forget the key")
