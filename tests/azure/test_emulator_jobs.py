"""Command jobs run for real: their code, inputs, outputs, logs, ranks and ends."""

import json
import sys
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from azure.ai.ml import Input, MLClient, Output, command
from azure.ai.ml.entities import Data, Environment, Job, Model
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import HttpResponseError

FINAL = {"Completed", "Failed", "Canceled"}
COPY = """
import os, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
(target / "config.json").write_text(source.read_text())
print("run", os.environ["AZUREML_RUN_ID"], os.environ["GREETING"])
"""


def submit(ml: MLClient, text: str, environment: str = "image", **options: Any) -> Job:
    wanted = command(
        name=f"job-{uuid.uuid4().hex[:8]}",
        command=text,
        environment=f"azureml:{environment}:1",
        compute="cluster",
        **options,
    )
    return ml.jobs.create_or_update(wanted)


def wait(ml: MLClient, job: Job, states: set[str] = FINAL) -> str:
    deadline = time.monotonic() + 30
    while (status := str(ml.jobs.get(job.name).status)) not in states:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def log_of(ml: MLClient, job: Job, folder: Path, name: str = "std_log.txt") -> str:
    ml.jobs.download(job.name, download_path=folder, all=True)
    return next(folder.rglob(name)).read_text()


def test_code_reads_its_input_and_its_output_becomes_a_model(ml: MLClient, tmp_path: Path) -> None:
    code, rows = tmp_path / "code", tmp_path / "rows"
    code.mkdir()
    rows.mkdir()
    (code / "copy_row.py").write_text(COPY)
    (rows / "row.json").write_text('{"row": 1}')
    ml.data.create_or_update(Data(name="job-rows", version="1", path=str(rows), type="uri_folder"))
    job = submit(
        ml,
        "python copy_row.py ${{inputs.rows}}/row.json ${{outputs.model}} $[[${{inputs.extra}}]]",
        code=str(code),
        inputs={"rows": Input(type="uri_folder", path="azureml:job-rows:1")},
        outputs={"model": Output(type="custom_model")},
        environment_variables={"GREETING": "hello"},
    )
    assert wait(ml, job) == "Completed"
    assert log_of(ml, job, tmp_path / "all") == f"run {job.name} hello\n"
    model = Model(name="copied", version="1", path=f"azureml://jobs/{job.name}/outputs/model")
    ml.models.create_or_update(model)
    ml.models.download("copied", "1", download_path=tmp_path / "back")
    assert json.loads(next((tmp_path / "back").rglob("config.json")).read_text()) == {"row": 1}


def test_a_failing_command_fails_the_job_and_streaming_says_why(
    ml: MLClient, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submit(ml, "echo out of luck; exit 3")
    assert wait(ml, job) == "Failed"
    with pytest.raises(JobException, match="status code 3"):
        ml.jobs.stream(job.name)
    with pytest.raises(HttpResponseError, match="already exists"):
        ml.jobs.create_or_update(
            command(name=job.name, command="other", environment="azureml:image:1", compute="cluster")
        )


def test_canceling_kills_what_the_command_started(ml: MLClient, tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    job = submit(ml, f"(while true; do touch {mark}; sleep 0.05; done) & wait")
    wait(ml, job, {"Running"})
    while not mark.exists():
        time.sleep(0.02)
    ml.jobs.begin_cancel(job.name).result()
    assert wait(ml, job) == "Canceled"
    mark.unlink()
    time.sleep(0.2)
    assert not mark.exists()


def test_two_nodes_with_two_processes_each_are_four_ranks(ml: MLClient, tmp_path: Path) -> None:
    job = submit(
        ml,
        'echo "$RANK of $WORLD_SIZE on node $NODE_RANK at $MASTER_ADDR"',
        instance_count=2,
        distribution={"type": "pytorch", "process_count_per_instance": 2},
    )
    assert wait(ml, job) == "Completed"
    assert log_of(ml, job, tmp_path, "std_log_process_3.txt") == "3 of 4 on node 1 at 127.0.0.1\n"
    too_many = submit(ml, "true", instance_count=3)
    assert wait(ml, too_many) == "Failed"


def test_equal_code_is_registered_once(ml: MLClient, tmp_path: Path) -> None:
    """The SDK names code at random, and finds it again by its content."""

    def code_of(text: str) -> str | None:
        code = tmp_path / uuid.uuid4().hex / "code"
        code.mkdir(parents=True)
        (code / "say.py").write_text(text)
        return submit(ml, "python say.py", code=str(code)).code

    first = code_of("print(1)")
    assert first == code_of("print(1)") != code_of("print(2)")


def test_a_wheel_is_installed_for_the_job_alone(ml: MLClient, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    with zipfile.ZipFile(code / "only_there-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("only_there.py", "print('imported')\n")
        wheel.writestr(
            "only_there-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: only-there\nVersion: 1.0\n"
        )
        wheel.writestr("only_there-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("only_there-1.0.dist-info/RECORD", "")
    job = submit(ml, "pip install -q *.whl && python -c 'import only_there, requests'", code=str(code))
    assert wait(ml, job) == "Completed"
    assert "imported" in log_of(ml, job, tmp_path / "all")
    assert "only_there" not in sys.modules
    with pytest.raises(ImportError):
        __import__("only_there")


@pytest.mark.parametrize(
    ("name", "dependencies", "words"),
    [
        ("misspelt", [{"pip": ["mlflow=3.15.0"]}], "names no package by 'mlflow=3.15.0'"),
        ("listless", "python=3.11", "has no list of dependencies"),
    ],
)
def test_a_job_whose_image_cannot_be_built_fails_with_the_reason(
    ml: MLClient, name: str, dependencies: object, words: str
) -> None:
    make_environment(ml, name, dependencies)
    job = submit(ml, "true", name)
    assert wait(ml, job) == "Failed"
    with pytest.raises(JobException, match=f"Image build failed.*{words}"):
        ml.jobs.stream(job.name)


def test_packages_that_were_not_resolved_are_said_to_be_not(ml: MLClient, tmp_path: Path) -> None:
    make_environment(ml, "unresolved", ["python=3.11", {"pip": ["requests"]}])
    job = submit(ml, "true", "unresolved")
    assert wait(ml, job) == "Completed"
    assert "not resolved" in log_of(ml, job, tmp_path, "20_image_build_log.txt")


def make_environment(ml: MLClient, name: str, dependencies: object) -> None:
    conda = {"name": name, "dependencies": dependencies}
    ml.environments.create_or_update(
        Environment(name=name, version="1", image="python:3.11", conda_file=conda)
    )
