"""Errors of Prompt flow's client, explained as `deploy.azure.steps.problems` does; names a missing role."""

from collections.abc import Iterator
from contextlib import contextmanager

from deploy.azure.steps import problems
from phi3flow.core.errors import Phi3flowError

SECRETS_READER = "Azure Machine Learning Workspace Connection Secrets Reader"
BLOB_READER = "Storage Blob Data Reader"


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Say what goes wrong in the block in a sentence; our own errors say it already, and so does a bug."""
    try:
        with unwrapped():
            yield
    except Exception as error:
        if hasattr(error, "hint"):
            raise
        raise problems.explain(error, doing, []) from error


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise what a client of Azure's raised inside Prompt flow's error, for others to explain."""
    from promptflow.exceptions import PromptflowException

    try:
        yield
    except PromptflowException as error:
        raise _cause_of(error) from error


def _cause_of(error: BaseException) -> Exception:
    """Azure's error where Prompt flow wraps one, else Prompt flow's own words as an error with a hint."""
    from azure.core.exceptions import AzureError, HttpResponseError

    found: BaseException | None = error
    while found is not None and not isinstance(found, AzureError):
        found = getattr(found, "inner_exception", None) or found.__cause__
    if isinstance(found, HttpResponseError) and found.status_code == 403 and _is_storage(found):
        return missing_role(BLOB_READER, "the storage account")
    if isinstance(found, AzureError):
        return found
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Phi3flowError(lines[0] if lines else type(error).__name__, "the same command tries again")


def _is_storage(error: Exception) -> bool:
    """Whether the blob service said it: its refusals come without a body that Resource Manager would send."""
    response = getattr(error, "response", None)
    url = str(getattr(getattr(response, "request", None), "url", ""))
    return ".blob.core." in url or ".file.core." in url


def missing_role(role: str, scope: str) -> Phi3flowError:
    return Phi3flowError(
        f"your login lacks the role '{role}' on {scope}",
        f"ask an owner for it: az role assignment create --assignee YOU --role '{role}' --scope ID",
    )
