"""Who may send requests: one fixed key, or the one or two keys in a file that may change."""

import hmac
import logging
from pathlib import Path

from phi3flow.core.errors import BadInput

MAX_KEYS = 2  # the new one and the old one, while clients change over
log = logging.getLogger("phi3flow.scoring")


class KeyFile:
    """At most MAX_KEYS keys, one a line, read anew for every request.

    To rotate: add the new key as a second line, change the clients, remove the first line. If the file
    becomes unusable, the keys stay as they were.
    """

    def __init__(self, path: Path) -> None:
        """Raises BadInput."""
        self._path = path
        self._keys = _read(path)

    def keys(self) -> tuple[str, ...]:
        try:
            found = _read(self._path)
        except BadInput as error:
            log.error("%s; the keys stay as they were", error)
            return self._keys
        if found != self._keys:
            self._keys = found
            log.warning("the keys have changed: %d now", len(found))
        return found


def is_authorized(header: str | None, key: str | KeyFile) -> bool:
    """Whether an Authorization header carries a key as its bearer token, compared in constant time."""
    scheme, _, token = (header or "").partition(" ")
    given = token.strip().encode("latin-1")
    keys = key.keys() if isinstance(key, KeyFile) else (key,)
    matches = [hmac.compare_digest(given, known.encode()) for known in keys]
    return scheme.lower() == "bearer" and any(matches)


def _read(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise BadInput(f"{path}: {reason}", hint="write one or two keys into it, one a line") from None
    keys = tuple(line.strip() for line in lines if line.strip())
    if not 1 <= len(keys) <= MAX_KEYS:
        raise BadInput(f"{path}: holds {len(keys)} keys, not one or two", hint="one key a line")
    return keys
