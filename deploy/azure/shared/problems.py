"""What the SDKs raise, in one sentence each: what happened, what exists now, the command to continue.

Azure reports a failed long-running operation with status 200, so the error code decides, not the status.
Prompt flow's client wraps Azure's errors; they are unwrapped first.
"""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files

from phi3flow.core.errors import Phi3flowError, first_line, translating

LOGIN = "az login --tenant TENANT, then az account set --subscription ID"
SDKS = ("azure.", "msrest.", "requests.", "urllib3.")
SECRETS_READER = "Azure Machine Learning Workspace Connection Secrets Reader"
BLOB_READER = "Storage Blob Data Reader"


@cache
def _known() -> list[dict[str, str]]:
    table = (files("deploy.azure.shared") / "problems.toml").read_text(encoding="utf-8")
    return list(tomllib.loads(table)["known"])


@contextmanager
def explaining(doing: str, done: Sequence[str] | None = None) -> Iterator[None]:
    """Turn errors of Azure's SDKs and of Prompt flow's client inside the block into a Phi3flowError.

    `doing` names the step. With `done`, the resources made so far, every error, ours too, also says what
    exists now and how to continue. Other exceptions are bugs and pass unchanged.
    """
    try:
        with translating({Exception: lambda error: _translated(error, doing)}):
            yield
    except Exception as error:
        if done is None or not hasattr(error, "hint"):
            raise
        raise _with_state(error, error.hint, done) from error


def missing_role(role: str, scope: str) -> Phi3flowError:
    return Phi3flowError(
        f"your login lacks the role '{role}' on {scope}",
        f"ask an owner for it: az role assignment create --assignee YOU --role '{role}' --scope ID",
    )


def _with_state(error: Exception, hint: str, done: Sequence[str]) -> Phi3flowError:
    again = f"continue with: {shlex.join(['phi3flow', *sys.argv[1:]])}"
    told = Phi3flowError(
        f"{error}\nexists now: {', '.join(done) or 'nothing new'}", f"{hint}; then {again}" if hint else again
    )
    told.exit_code = getattr(error, "exit_code", told.exit_code)
    return told


def _translated(error: Exception, doing: str) -> Exception:
    """Our error for an SDK's; `error` itself where it comes from somewhere else."""
    from azure.core import exceptions as core

    if _is_from(error, "promptflow."):
        error = _cause_of(error)
    if hasattr(error, "hint") or not _is_from(error, *SDKS):
        return error
    code, message = code_of(error), _first_line(error)
    for known in _known():
        if re.search(known["codes"], code or message, re.IGNORECASE) or re.search(
            known.get("words", "\0"), message
        ):
            sentence = f"{known['sentence']} ({code or message}){_detail(code, message)}"
            return Phi3flowError(f"{doing}: {sentence}", known["hint"])
    if isinstance(error, core.ClientAuthenticationError):
        return Phi3flowError(f"{doing}: not logged in to Azure: {message}", LOGIN)
    if isinstance(error, core.ServiceRequestError | core.ServiceResponseError):
        return Phi3flowError(
            f"{doing}: the connection to Azure broke: {message}", "check the network and the proxy"
        )
    return Phi3flowError(f"{doing}: Azure refused: {f'{code}: ' if code else ''}{message}")


def _cause_of(error: Exception) -> Exception:
    """Azure's error where Prompt flow wraps one, else Prompt flow's own words as an error with a hint."""
    from azure.core.exceptions import AzureError, HttpResponseError

    found: BaseException | None = error
    while found is not None and not isinstance(found, AzureError):
        found = getattr(found, "inner_exception", None) or found.__cause__
    if isinstance(found, HttpResponseError) and found.status_code == 403 and _is_storage(found):
        return missing_role(BLOB_READER, "the storage account")
    return found or Phi3flowError(first_line(error), "run the same command again")


def _is_storage(error: Exception) -> bool:
    """Whether Blob or File storage answered; its refusals lack the body that Resource Manager sends."""
    response = getattr(error, "response", None)
    url = str(getattr(getattr(response, "request", None), "url", ""))
    return ".blob.core." in url or ".file.core." in url


def _detail(code: str, message: str) -> str:
    """The action and scope of a missing role, or Azure's own words where they add something."""
    told = re.search(r"perform action '([^']+)'(?: or the scope is invalid)?.*?scope '([^']+)'", message)
    if told:
        return f": {told[1]} on {told[2]}"
    return f": {message}" if code and message else ""


def code_of(error: Exception) -> str:
    """The innermost code Azure gives, '' where it gives none."""
    found = getattr(error, "error", None)
    code = str(getattr(found, "code", None) or "")
    for detail in getattr(found, "details", None) or []:
        code = str(getattr(detail, "code", None) or code)
    return code


def _first_line(error: Exception) -> str:
    message = str(getattr(error, "message", None) or error).strip()
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    lines.sort(
        key=lambda line: "AADSTS" not in line
    )  # Entra's own words, below azure-identity's "failed to ..."
    text = next((line for line in lines if not re.match(r"(Code|Message)?:?$", line)), type(error).__name__)
    return without_secrets(text)[:400]


def without_secrets(text: str) -> str:
    return re.sub(r"(sig|key|token|secret)=[^&\s]+", r"\1=...", text)


def _is_from(error: Exception, *modules: str) -> bool:
    return type(error).__module__.startswith(modules)
