"""What the SDKs raise, in one sentence each: what happened, what exists now, the command to continue.

Azure reports a failed long-running operation with status 200, so everything is told by its error code.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from typing import NamedTuple

from phi3flow.core.errors import Phi3flowError

LOGIN = "az login --tenant TENANT, then az account set --subscription ID"


class Known(NamedTuple):
    """`codes` is matched against the error's code and, where `in_message`, its text."""

    codes: str
    sentence: str
    hint: str


# In this order: an image that cannot be built is reported inside a deployment that failed, for example.
KNOWN = (
    Known(
        r"SubscriptionNotFound|InvalidSubscription|SubscriptionIdNotFound",
        "this login does not see the subscription",
        "az account list -o table, then export PHI3FLOW_AZURE_SUBSCRIPTION=ID",
    ),
    Known(
        r"AuthorizationFailed|LinkedAuthorizationFailed|AuthorizationPermissionMismatch|Forbidden",
        "a role is missing",
        "ask an owner for the role that allows it (docs/azure.md, roles)",
    ),
    Known(
        r"ExpiredAuthenticationToken|InvalidAuthenticationToken|AuthenticationFailed|Unauthorized",
        "Azure refused the login",
        LOGIN,
    ),
    Known(
        r"quota",
        "there is no quota for it",
        "ask for it at https://ml.azure.com/quota (the size's family, this region), or use another --size",
    ),
    Known(
        r"AlreadyTaken|AlreadyInUse|NameUnavailable|NameNotAvailable|VaultAlreadyExists|NameInUse|SoftDeleted",
        "the name is taken, perhaps by a deleted resource that Azure still keeps",
        "choose another PHI3FLOW_AZURE_WORKSPACE, or purge what was deleted (az keyvault purge --name NAME)",
    ),
    Known(
        r"SkuNotAvailable|SizeNotAvailable|NotAvailableForResourceType|LocationNotAvailable|SkuNotSupported"
        r"|VmSizeNotSupported|InvalidVmSize",
        "this region does not offer the size",
        "az vm list-skus --location REGION --size Standard_NC, then --size or PHI3FLOW_AZURE_REGION",
    ),
    Known(
        r"ImageBuild",
        "the container image could not be built",
        "the build's log is in the storage account, container azureml, ImageLogs",
    ),
    Known(
        r"ResourceNotReady|ContainerStart|Crash|LivenessProbe|ReadinessProbe|UserContainer|ResourceNotFound.*score",
        "the container does not become ready",
        "its log stands above",
    ),
    Known(r"TooManyRequests|Throttl", "Azure is throttling", "wait a minute"),
)


def explain(error: Exception, doing: str, done: Sequence[str]) -> Phi3flowError:
    """The error to raise for an SDK's, while `doing` one step after the steps `done`.

    Raises the error itself where it is none of Azure's: that is a bug.
    """
    if hasattr(error, "hint"):
        own = Phi3flowError(_with_state(f"{doing}: {error}", done), _hint(error.hint))
        own.exit_code = getattr(error, "exit_code", own.exit_code)
        return own
    sentence, hint = _told(error)
    return Phi3flowError(_with_state(f"{doing}: {sentence}", done), _hint(hint))


def _with_state(sentence: str, done: Sequence[str]) -> str:
    return f"{sentence}\nexists now: {', '.join(done) if done else 'nothing new'}"


def _hint(specific: str) -> str:
    again = shlex.join(["phi3flow", *sys.argv[1:]])
    return f"{specific}; then continue with: {again}" if specific else f"continue with: {again}"


def _told(error: Exception) -> tuple[str, str]:
    from azure.core import exceptions as core

    code, message = code_of(error), _first_line(error)
    for known in KNOWN:
        if re.search(known.codes, code or message, re.IGNORECASE):
            return f"{known.sentence} ({code or message}){_detail(code, message)}", known.hint
    if isinstance(error, core.ClientAuthenticationError):
        return f"not logged in to Azure: {message}", LOGIN
    if isinstance(error, core.ServiceRequestError | core.ServiceResponseError):
        return f"the connection to Azure broke: {message}", "check the network and the proxy"
    if isinstance(error, core.AzureError) or _is_from_sdk(error):
        return f"Azure refused: {f'{code}: ' if code else ''}{message}", ""
    raise error


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
    text = next((line for line in lines if not re.match(r"(Code|Message)?:?$", line)), type(error).__name__)
    return re.sub(r"(sig|key|token|secret)=[^&\s]+", r"\1=...", text)[:400]


def _is_from_sdk(error: Exception) -> bool:
    return type(error).__module__.startswith(("azure.", "msrest.", "requests.", "urllib3."))
