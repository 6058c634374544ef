"""One run of a flow in a process of its own: `flow_worker.py REQUEST.json`.

What the checkout or its environment has beside the flow's own requirements is not there in the cloud, so it
cannot be imported here either.
"""

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

NOT_THERE = {"phi3flow", "training", "deploy", "custom_connections", "flows", "evaluation", "ui"}


class NotInTheCloud(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name.split(".", maxsplit=1)[0] in NOT_THERE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    sys.meta_path.insert(0, NotInTheCloud())
    request = json.loads(Path(sys.argv[1]).read_text())
    from promptflow.client import PFClient
    from promptflow.exceptions import PromptflowException

    client = PFClient(config={"run.output_path": request["output"]})
    result = {"error": None, "metrics": {}, "folder": f"{request['output']}/{request['name']}"}
    try:
        run = client.run(
            flow=request["flow"],
            data=request["data"],
            name=request["name"],
            column_mapping=request["mapping"],
        )
        if run.status == "Completed":
            result["metrics"] = client.get_metrics(run)
        else:
            result["error"] = f"The run is {run.status}."
    except PromptflowException as error:
        result["error"] = str(error)
    Path(request["result"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
