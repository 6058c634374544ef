"""Errors as `pf flow serve` answers them: a code, a sentence, and the HTTP status of the code."""

from agents.promptflow_names import PromptflowException

USER, SYSTEM = "UserError", "SystemError"


class Failed(Exception):
    """A request that cannot be answered, because of what was asked or of what a node raised."""

    code, status = USER, 400

    def __init__(self, message: str) -> None:
        super().__init__(message)


class NotAcceptable(Failed):
    status = 406


class NodeFailed(Failed):
    """A node raised; `error` is what it raised."""

    def __init__(self, node: str, error: Exception) -> None:
        super().__init__(f"Execution failure in '{node}': ({type(error).__name__}) {error}")
        self.error = error


def code_and_status(error: Exception) -> tuple[str, int]:
    """What a client gets: its own mistakes and a node's errors are 400, everything else is 500."""
    code = error.code if isinstance(error, Failed | PromptflowException) else SYSTEM
    return code, getattr(error, "status", 400 if code == USER else 500)
