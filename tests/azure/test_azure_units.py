"""What the cloud half decides without a cloud."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError

from custom_connections.promptflow_home import QUIET
from deploy.azure import job_gpu
from deploy.azure.deploy import Serving
from deploy.azure.provision import differences
from deploy.azure.rollout import Held, require_promotion
from deploy.azure.shared.assets import PACKAGES, staged
from deploy.azure.shared.names import Names
from deploy.azure.shared.problems import explaining
from deploy.azure.shared.quota import Quota
from deploy.azure.shared.sizes import Profile, dated, hourly, profile_for, reserved, serving_size
from deploy.azure.train import Training, check_here, command_line
from deploy.foundry.catalog import CatalogTraining
from deploy.verify.fidelity import Reference
from phi3flow.app.commands.verify import reference_of
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.core.jsonl import write_jsonl
from phi3flow.core.lineage import sha256_of
from phi3flow.core.settings import Settings

ENTRIES = (
    "phi3flow.app.cli",
    "training.finetune",
    "deploy.export.openvino",
    "deploy.scoring.http.app",
    "deploy.azure.job_outputs",
    "deploy.foundry.catalog_card",
)
# As in a job: the packages of the image, without an installed phi3flow.
ALONE = """
import importlib, sys
folder, *entries = sys.argv[1:]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
for name in entries:
    importlib.import_module(name)
packages = {name.partition(".")[0] for name in entries}
ours = [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] in packages]
assert len(ours) > 20
assert [path for path in ours if path and not path.startswith(folder)] == []
assert "ui" not in sys.modules
"""


def test_names_follow_from_where_and_keep_azures_rules():
    one = Names.of(Settings(azure_subscription="s", azure_workspace="a"))
    other = Names.of(Settings(azure_subscription="s", azure_workspace="b"))
    assert one == Names.of(Settings(azure_subscription="s", azure_workspace="a"))
    assert one.global_name != other.global_name
    assert one.global_name.isalnum()
    assert len(one.global_name) <= 24
    assert len(one.endpoint("phi3-tuned")) <= 32


def test_only_what_azure_shows_otherwise_is_a_difference():
    wanted = {"location": "eastus2", "properties": {"secret": "x", "nodes": 2, "size": "Standard_E4s_v3"}}
    found = {"location": "East US 2", "properties": {"nodes": 1, "size": "STANDARD_E4S_V3", "more": 1}}
    assert differences(wanted, found) == ["properties.nodes: 1 -> 2"]


def test_the_staged_code_is_the_same_twice_and_complete(tmp_path):
    with staged(PACKAGES) as first, staged(PACKAGES) as second:
        assert sha256_of(first) == sha256_of(second)
        names = {path.relative_to(first).as_posix() for path in first.rglob("*")}
        assert sorted(path.name for path in first.iterdir()) == sorted(PACKAGES)
    for package, suffixes in {
        "training": {".toml", ".csv"},
        "evaluation": {".toml", ".jsonl", ".jinja", ".css"},
        "flows": {".yaml", ".jsonl", ".txt"},
    }.items():
        assert suffixes <= {Path(name).suffix for name in names if name.startswith(f"{package}/")}
    assert not any("__pycache__" in name or "/." in name for name in names)


def test_jobs_and_deployments_import_nothing_but_the_staged_code(tmp_path):
    with staged(PACKAGES) as folder:
        command = [sys.executable, "-P", "-c", ALONE, str(folder), *ENTRIES]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        ran = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stderr


def test_a_profile_is_a_cluster_and_another_size_is_another_cluster():
    assert profile_for("cpu") == Profile("cpu-e16s", "Standard_E16s_v3")
    assert profile_for("gpu", "Standard_NC40ads_H100_v5") == Profile(
        "gpu-nc40ads", "Standard_NC40ads_H100_v5"
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("tpu", None, 1), "--profile: unknown 'tpu'"),
        (("cpu", None, 0), "--nodes: must be at least 1"),
        (("cpu", "foo", 1), "'foo' is no machine size; sizes look like Standard_NC24ads_A100_v4"),
        (("cpu", "Standard_", 1), "no machine size"),
        (("cpu", "Standard_E16s_v3 --x", 1), "no machine size"),
    ],
)
def test_what_is_no_cluster_is_one_sentence(asked, words):
    with pytest.raises(BadInput, match=words) as refused:
        profile_for(*asked)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("engine", "days", "reference", "words"),
    [
        ("openvino", 0, None, "--days: must be at least 1"),
        ("vllm", None, (__file__, 0.9), "only the CPU engine serves int4"),
        ("openvino", None, ("missing.jsonl", 0.9), "missing.jsonl: no such file"),
    ],
)
def test_a_deployment_that_could_only_fail_is_refused_first(engine, days, reference, words):
    known = Reference(Path(reference[0]), reference[1]) if reference else None
    with pytest.raises(BadInput, match=words):
        Serving(False, engine, "Standard_E4s_v3", "key", days, known, 1).require()


def test_a_share_of_exact_answers_is_no_percentage():
    with pytest.raises(BadInput, match="--at-least: must be a share from 0 to 1"):
        reference_of(Path(__file__), 97.0)


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"model": "Phi-3-mini"}, "not a Phi mini of the catalog"),
        ({"scheduler": "cosin"}, "--scheduler: unknown 'cosin'"),
        ({"learning_rate": 0.0}, "--learning-rate: must be between 0 and 1"),
        ({"epochs": 0}, "--epochs: must be at least 1"),
        ({}, r"train\.jsonl: no such file"),
    ],
)
def test_a_catalog_training_that_could_only_fail_is_refused_first(tmp_path, different, words):
    good = {"model": "Phi-3-mini-4k-instruct:11", "learning_rate": 5e-6, "scheduler": "cosine", "epochs": 3}
    with pytest.raises(BadInput, match=words):
        CatalogTraining(data=tmp_path, profile=profile_for("cpu"), **{**good, **different}).require()


def refusal(code: str, message: str = "words") -> HttpResponseError:
    error = HttpResponseError(message)
    error.error = type("Error", (), {"code": code, "message": message, "details": []})()
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClientAuthenticationError("nobody is logged in"), "az login"),
        (
            ClientAuthenticationError("AADSTS700024: Client assertion is out of its time"),
            "phi3flow azure wait",
        ),
        (ServiceRequestError("name or service not known"), "the connection to Azure broke"),
        (refusal("SubscriptionNotFound"), "does not see the subscription"),
        (refusal("OutOfQuota"), "no quota"),
        (refusal("SubscriptionNotRegistered", "provider [N/A] isn't registered"), "Microsoft.PolicyInsights"),
        (refusal("MissingSubscriptionRegistration"), "phi3flow azure provision registers"),
        (refusal("VaultAlreadyExists"), "the name is taken"),
        (refusal("Conflict", "A soft-deleted workspace has this name."), "Recently deleted: purge"),
        (refusal("SkuNotAvailable"), "does not offer the size"),
        (refusal("ImageBuildFailure"), "image could not be built"),
        (refusal("UserError", "The requested model m is not available in region r."), "azure train --model"),
        (
            ClientAuthenticationError("DefaultAzureCredential failed.\nTried:\n\tAz: ERROR: AADSTS70043: x"),
            "the login has expired",
        ),
        (refusal("ResourceNotReady"), "the container does not become ready"),
        (refusal("SomethingNew"), "Azure refused: SomethingNew: words"),
    ],
)
def test_every_refusal_says_what_exists_and_how_to_go_on(error, words):
    with pytest.raises(Phi3flowError) as told, explaining("workspace w", ["resource group g"]):
        raise error
    whole = f"{told.value}\n{told.value.hint}"
    assert words in whole
    assert "exists now: resource group g" in whole
    assert "continue with: phi3flow" in whole


def test_a_missing_role_names_the_action_and_the_scope():
    message = (
        "The client 'c' with object id 'o' does not have authorization to perform action "
        "'Microsoft.Storage/storageAccounts/write' over scope '/subscriptions/s/resourceGroups/g'."
    )
    where = "Microsoft.Storage/storageAccounts/write on /subscriptions/s/resourceGroups/g"
    with pytest.raises(Phi3flowError, match=where), explaining("storage account a"):
        raise refusal("AuthorizationFailed", message)


def test_a_signature_in_an_error_is_not_repeated():
    with pytest.raises(Phi3flowError, match="Azure refused") as told, explaining("s"):
        raise refusal("X", "GET https://x.blob.core.windows.net/c?sig=abc&se=1")
    assert "abc" not in str(told.value)


def test_a_bug_stays_a_bug():
    with pytest.raises(ZeroDivisionError), explaining("step", ["resource group g"]):
        raise ZeroDivisionError


def test_an_error_of_ours_keeps_its_words_and_its_exit_code():
    with pytest.raises(Phi3flowError) as told, explaining("traffic"):
        raise BadInput("no deployment passed verify", "phi3flow azure deploy")
    assert (str(told.value), told.value.hint) == ("no deployment passed verify", "phi3flow azure deploy")
    with pytest.raises(Phi3flowError, match="exists now: endpoint e") as told, explaining("", ["endpoint e"]):
        raise BadInput("no deployment passed verify", "phi3flow azure deploy")
    assert told.value.exit_code == BadInput.exit_code
    assert told.value.hint.startswith("phi3flow azure deploy; then continue with: phi3flow")


def test_azures_error_inside_prompt_flows_is_what_is_explained(monkeypatch):
    for name, value in QUIET.items():  # Prompt flow's telemetry starts when it is imported
        monkeypatch.setenv(name, value)
    from promptflow.exceptions import UserErrorException

    with pytest.raises(Phi3flowError, match="this login does not see"), explaining("flow chat"):
        raise UserErrorException("wrapped", error=refusal("SubscriptionNotFound"))
    with pytest.raises(Phi3flowError, match=r"^the flow is broken$"), explaining("flow chat"):
        raise UserErrorException("the flow is broken")


@pytest.mark.parametrize(("verdict", "code"), [("hold", 3), ("not_enough_data", 4)])
def test_without_the_verdict_promote_nothing_is_promoted(tmp_path, verdict, code):
    with pytest.raises(BadInput, match="no comparison yet"):
        require_promotion(tmp_path / "report.json", tmp_path / "verify.json")
    write_json(tmp_path / "report.json", {"verdict": verdict, "reasons": ["why"]})
    with pytest.raises(Held, match="why") as held:
        require_promotion(tmp_path / "report.json", tmp_path / "verify.json")
    assert held.value.exit_code == code


def test_every_size_that_is_used_has_a_price():
    assert dated() > "2026"
    sizes = [profile_for("gpu").size, profile_for("cpu").size, serving_size("openvino"), serving_size("vllm")]
    assert all(hourly(size) for size in sizes)
    assert hourly("Standard_Unknown") is None


def test_a_family_without_a_row_is_unknown_and_not_enough():
    unlisted = Quota("standardXFamily", "Standard_X", 4, 0, None)
    assert "Azure lists no such quota, so look at https://ml.azure.com/quota" in str(unlisted)
    assert Quota("f", "s", 4, 98, 100).missing == 2
    assert Quota("f", "s", 4, 98, -1).missing == 0


@pytest.mark.parametrize(
    ("family", "machines", "counted"),
    [
        ("standardDSv2Family", 10, 12),
        ("standardDSv2Family", 1, 2),
        ("standard NDASv4_A100 Family", 10, 10),
        ("standardNCADSA100v4Family", 1, 1),
    ],
)
def test_azure_reserves_a_fifth_more_machines_but_of_large_gpus(family, machines, counted):
    """The example of Microsoft's page: 10 instances need quota for 12."""
    assert reserved(family, machines) == counted


def test_a_base_that_the_job_could_not_load_is_refused_before_it_is_submitted(tmp_path):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "adapter_config.json").write_text('{"base_model_name_or_path": "any/base"}')
    (tmp_path / "empty").mkdir()
    for model, words in {
        "adapters": "LoRA adapters of any/base, not a model",
        "empty": "not a model folder",
        "missing": "no such model folder",
    }.items():
        asked = Training(tmp_path, "tiny-cpu", str(tmp_path / model), 0, 1, profile_for("cpu"))
        with pytest.raises(BadInput, match=words):
            check_here(asked)


def test_a_split_model_needs_several_nodes(tmp_path):
    asked = Training(tmp_path, "phi3.5-mini-full-fsdp", None, 0, 1, profile_for("gpu"))
    with pytest.raises(BadInput, match="splits the model over several processes, and this is one") as caught:
        check_here(asked)
    assert "azure train --nodes N" in caught.value.hint


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": 7}, r"train\.jsonl:1: messages\[0\]\.content"),
        ({"role": "nobody", "content": "Hi"}, r"train\.jsonl:1: messages\[0\]\.role"),
    ],
)
def test_chats_that_the_catalog_would_trip_over_are_named_first(tmp_path, message, words):
    answer = {"role": "assistant", "content": "Hello."}
    for name in ("train", "val"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"messages": [message, answer]}])
    good = {"model": "Phi-4-mini-instruct:1", "learning_rate": 5e-6, "scheduler": "cosine", "epochs": 3}
    with pytest.raises(BadInput, match=words):
        CatalogTraining(data=tmp_path, profile=profile_for("cpu"), **good).require()


@pytest.mark.parametrize(("profile", "looks"), [("gpu", True), ("cpu", False)])
def test_a_job_on_gpus_looks_for_them_before_it_trains(tmp_path, profile, looks):
    line = command_line(Training(tmp_path, "tiny-cpu", None, 0, 1, profile_for(profile)))
    assert line.startswith("python -P -m deploy.azure.job_gpu && ") == looks
    assert (
        "PHI3FLOW_TRACK=0 python -P -m phi3flow train" in line
    )  # the outputs are written before it is logged
    assert line.index("phi3flow train") < line.index("job_outputs")


def test_each_of_several_nodes_runs_the_command_that_torchrun_starts(tmp_path):
    """Azure's launcher starts it once a rank, and sets what torchrun sets (tests/training/test_ranks.py)."""
    one, four = (
        command_line(Training(tmp_path, "phi3.5-mini-full-fsdp", None, 3, nodes, profile_for("gpu")))
        for nodes in (1, 4)
    )
    assert one == four
    [ours] = re.findall(r"phi3flow (train .*?) &&", four)
    assert ours == ("train --data ${{inputs.data}} --recipe phi3.5-mini-full-fsdp --out tuned --seed 3")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_job_stops_with_the_reason(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match=r"sees no GPU here \(no NVIDIA driver\)"):
        job_gpu.main()


def test_chats_are_encoded_before_a_job_is_submitted(tmp_path, capsys):
    tokenizer = tmp_path / "model"
    shutil.copytree(Path(__file__).parents[1] / "data" / "phi3_tokenizer", tokenizer)
    (tokenizer / "config.json").write_text("{}")
    short = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    long = [{"role": "user", "content": "word " * 300}, short[1]]
    write_jsonl(tmp_path / "train.jsonl", [{"messages": short}, {"messages": long}])
    write_jsonl(tmp_path / "val.jsonl", [{"messages": short}])
    recipe = tmp_path / "mine.toml"
    settings = 'steps = 5\nbatch_size = 1\nlearning_rate = 1e-4\nmax_length = 64\nlong_chats = "{}"\n'
    asked = Training(tmp_path, str(recipe), str(tokenizer), 0, 1, profile_for("cpu"))
    recipe.write_text(settings.format("drop"))
    check_here(asked)
    assert "train: 1 of 2 chats are longer than max_length 64" in capsys.readouterr().err
    recipe.write_text(settings.format("refuse"))
    with pytest.raises(BadInput, match=r"train\.jsonl:2: messages: 3\d\d tokens, more than max_length 64"):
        check_here(asked)
