"""Who may open the page: anyone on this machine, or a person who logged in."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

LOOPBACK_ADDRESSES = frozenset({"127.0.0.1", "localhost", "::1"})
NEEDED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
HOW_TO = """write .streamlit/secrets.toml (never into git) with the app registration of your login provider:
  [auth]
  redirect_uri = "https://HOST:8501/oauth2callback"
  cookie_secret = "a long random text"
  client_id = "..."
  client_secret = "..."
  server_metadata_url = "https://login.microsoftonline.com/TENANT/v2.0/.well-known/openid-configuration"
and install the client: pip install 'streamlit[auth]'. See docs/chat.md."""


def on_this_machine() -> bool:
    """Whether this machine alone reaches the page."""
    import streamlit as st

    return st.get_option("server.address") in LOOPBACK_ADDRESSES


def owner() -> str:
    """Who opened the page; empty on loopback, where everybody is the same. Stops the script for a login."""
    import streamlit as st

    if on_this_machine():
        return ""
    if problem := login_problem():
        st.error(f"Other machines can reach this page, but nobody can log in: {problem}.")
        st.code(HOW_TO, language=None)
        st.stop()
    if not st.user.is_logged_in:
        st.title("phi3flow")
        st.button("Log in", on_click=st.login, type="primary")
        st.stop()
    return str(st.user.get("sub") or st.user.get("email"))


def login_problem() -> str:
    """Why nobody can log in, or an empty text. Streamlit's OpenID Connect needs its secrets and Authlib."""
    missing = [f"[auth] {name}" for name in NEEDED if name not in _auth()]
    if missing:
        return f".streamlit/secrets.toml lacks {', '.join(missing)}"
    return "" if find_spec("authlib") else "Authlib is not installed"


def _auth() -> dict[str, object]:
    """Section `auth` of Streamlit's secrets: of the current folder, else of the home folder."""
    for folder in (Path.cwd(), Path.home()):
        try:
            auth = tomllib.loads((folder / ".streamlit" / "secrets.toml").read_text(encoding="utf-8"))["auth"]
        except (OSError, ValueError, LookupError):
            continue
        if isinstance(auth, dict):
            return auth
    return {}
