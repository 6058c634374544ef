"""Which requests a server on loopback answers: those of programs on this machine and of its own pages.

With DNS rebinding, a name of the attacker's leads to 127.0.0.1: such a request has another Host. A page
elsewhere that asks through the reader's browser has another Origin.
"""

from urllib.parse import SplitResult, urlsplit

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost"})


def refusal(host: str, origin: str | None) -> str:
    """Why a request with these two headers gets no answer; empty if it gets one."""
    asked, came_from = _parts(f"//{host}"), _parts(origin or "")
    if asked is None or asked.hostname not in LOCAL_NAMES or "@" in host:
        return "the Host of a request must be 127.0.0.1 or localhost"
    if origin is not None and (came_from is None or not _is_page_of(came_from, host)):
        return "a page of another origin may not ask here"
    return ""


def _is_page_of(origin: SplitResult, host: str) -> bool:
    return origin.scheme in {"http", "https"} and origin.netloc == host


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
