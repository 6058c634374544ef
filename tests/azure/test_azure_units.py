"""What the cloud half decides without a cloud."""

import zipfile

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError

from deploy.azure.rollout import Held, require_promotion
from deploy.azure.steps.arm import differences
from deploy.azure.steps.names import Names
from deploy.azure.steps.problems import explaining
from deploy.azure.steps.sizes import dated, hourly, profile, serving_size
from deploy.azure.wheel import build_wheel
from phi3flow.core.errors import BadInput, Phi3flowError
from phi3flow.core.files import write_json
from phi3flow.core.settings import Settings


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


def test_the_wheel_is_the_same_twice_and_holds_the_packages(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = set(zipfile.ZipFile(first).namelist())
    assert {
        "phi3flow/app/cli.py",
        "deploy/azure/container/score.py",
        "training/recipes/tiny-cpu.toml",
    } <= names
    assert any(name.endswith(".dist-info/RECORD") for name in names)
    assert not any("__pycache__" in name for name in names)


def refusal(code: str, message: str = "words") -> HttpResponseError:
    error = HttpResponseError(message)
    error.error = type("Error", (), {"code": code, "message": message, "details": []})()
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClientAuthenticationError("nobody is logged in"), "az login"),
        (ServiceRequestError("name or service not known"), "the connection to Azure broke"),
        (refusal("SubscriptionNotFound"), "does not see the subscription"),
        (refusal("OutOfQuota"), "no quota"),
        (refusal("VaultAlreadyExists"), "the name is taken"),
        (refusal("SkuNotAvailable"), "does not offer the size"),
        (refusal("ImageBuildFailure"), "image could not be built"),
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


def test_azures_error_inside_prompt_flows_is_what_is_explained():
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
    sizes = [profile("gpu").size, profile("cpu").size, serving_size("openvino"), serving_size("vllm")]
    assert all(hourly(size) for size in sizes)
    assert hourly("Standard_Unknown") is None
