"""The registered model in the CPU engine's format: `phi3flow export`, as a job on the same cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.azure.steps.assets import ModelAsset, TrainingEnvironment, version_of
from deploy.azure.steps.job import Job
from deploy.azure.steps.names import OURS
from deploy.azure.steps.session import Cloud
from deploy.azure.train import EXPERIMENT, INSTALL

FIND = "MODEL=$(dirname $(find ${{inputs.model}} -name config.json | sort | head -n 1))"


@dataclass(frozen=True)
class Export:
    """A model to convert on `compute`, with the code folder that holds the wheel."""

    cloud: Cloud
    model: ModelAsset
    environment: TrainingEnvironment
    compute: str
    code: Path
    int4: bool

    def job(self) -> Job:
        identity = version_of(self.model.name, self.environment.version, self._line())
        return Job(self.cloud, "phi3flow-export", identity, self._build)

    def exported(self, job: Job) -> ModelAsset:
        """What the job makes, to be registered when it is done."""
        return ModelAsset(
            self.cloud,
            f"{self.model.asset}-openvino",
            job.identity,
            f"azureml://jobs/{job.name}/outputs/model/paths/",
            "custom_model",
            {**self.model.tags, OURS: "deploy", "from": self.model.name},
        )

    def _line(self) -> str:
        int4 = " --int4" if self.int4 else ""
        return (
            f"{INSTALL} && {FIND} && python -m phi3flow export $MODEL --format openvino{int4} --out exported "
            "&& cp -r exported/. ${{outputs.model}}"
        )

    def _build(self, name: str) -> Any:
        from azure.ai.ml import Input, Output, command

        return command(
            name=name,
            display_name=f"export of {self.model.name}",
            experiment_name=EXPERIMENT,
            code=str(self.code),
            command=self._line(),
            environment=f"azureml:{self.environment.name}",
            compute=self.compute,
            inputs={"model": Input(type=self.model.type, path=f"azureml:{self.model.name}")},
            outputs={"model": Output(type="custom_model")},
            tags={OURS: "deploy", "from": self.model.name},
        )
