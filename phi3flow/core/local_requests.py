"""Which requests a server on loopback answers: those of programs on this machine and of its own pages.

With DNS rebinding, a name of the attacker's leads to 127.0.0.1: such a request has another Host. A page
elsewhere that asks through the reader's browser has another Origin.
"""

from urllib.parse import SplitResult, urlsplit

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost"})


def refusal(host: str, origin: str | None) -> str:
    """Why a request with these two headers gets no answer; empty if it gets one."""
    asked, came_from = _parts(f"//{host}"), _parts(origin or "")
    if asked is None or asked.hostname not in LOCAL_NAMES:
        return "the Host of a request must be 127.0.0.1 or localhost"
    if origin is not None and (came_from is None or came_from.netloc != host):
        return "a page of another origin may not ask here"
    return ""


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
