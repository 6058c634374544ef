"""A certificate authority of our own, kept in the state folder, and a certificate for each host it plays."""

import ssl
import threading
from pathlib import Path

import trustme


class Certificates:
    """`authority` is the file that clients are told to trust; it stays the same across restarts."""

    def __init__(self, folder: Path) -> None:
        self.authority = folder / "authority.pem"
        key = folder / "authority.key"
        if key.exists():
            self._ca = trustme.CA.from_pem(self.authority.read_bytes(), key.read_bytes())
        else:
            self._ca = trustme.CA()
            self._ca.cert_pem.write_to_path(self.authority)
            key.touch(mode=0o600)
            key.write_bytes(self._ca.private_key_pem.bytes())
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}

    def context(self, host: str) -> ssl.SSLContext:
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                self._ca.issue_cert(host).configure_cert(context)
                self._contexts[host] = context
            return self._contexts[host]
