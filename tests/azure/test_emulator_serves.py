"""A deployment with our code runs our scoring script, on the model that was mounted for it."""

from pathlib import Path

import requests
from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    CodeConfiguration,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
    OnlineRequestSettings,
)

from deploy.azure.shared.assets import PACKAGES, staged


def blue(code: Path) -> ManagedOnlineDeployment:
    return ManagedOnlineDeployment(
        name="blue",
        endpoint_name="lively",
        model="azureml:lively:1",
        environment="azureml:image:1",
        code_configuration=CodeConfiguration(
            code=str(code), scoring_script="deploy/azure/container/score.py"
        ),
        instance_type="Standard_E4s_v3",
        instance_count=1,
        request_settings=OnlineRequestSettings(request_timeout_ms=90_000),
    )


def test_the_models_answer_is_the_endpoints(ml: MLClient, tmp_path: Path) -> None:
    from tiny import lively_model, new_tokenizer, saved

    tokenizer = new_tokenizer()
    saved(lively_model(tokenizer), tokenizer, tmp_path / "tuned")
    ml.models.create_or_update(Model(name="lively", version="1", path=str(tmp_path / "tuned")))
    endpoint = ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="lively")).result()
    with staged(PACKAGES) as code:
        ml.online_deployments.begin_create_or_update(blue(code)).result()
    headers = {
        "Authorization": f"Bearer {ml.online_endpoints.get_keys('lively').primary_key}",
        "azureml-model-deployment": "blue",
    }
    chat = {"messages": [{"role": "user", "content": "Who?"}], "max_tokens": 8, "temperature": 0}

    def ask(body: dict[str, object]) -> requests.Response:
        return requests.post(endpoint.scoring_uri, json=body, headers=headers, timeout=60)

    answer = ask(chat).json()["choices"][0]["message"]["content"]
    assert answer
    parameters = {"max_new_tokens": 8, "temperature": 0}
    contract_b = {"input_data": {"input_string": chat["messages"], "parameters": parameters}}
    assert ask(contract_b).json() == {"output": answer}
    streamed = ask({**chat, "stream": True})
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert streamed.text.count("data: ") > 2
    assert streamed.text.rstrip().endswith("data: [DONE]")
    refused = ask({**chat, "temperature": 9})
    told = (refused.status_code, refused.headers["ms-azureml-model-error-statuscode"], refused.json())
    assert told[:2] == (424, "400")  # the front end's way of passing on what a container refuses
    assert told[2]["error"]["param"] == "temperature"
    ml.online_endpoints.begin_delete("lively").result()
