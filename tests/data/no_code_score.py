"""What Azure ML's no-code image does with an MLflow model: an entry script for its inference server.

Written after `mlflow_score_script.py` of Azure/azureml-assets (mlflow-py312-inference), as far as our model
goes: the request schema is made from the model's own input example and signature while the script is loaded,
the body is `{"input_data": <split frame>, "params": {..}}`, and the answer is the prediction as JSON.
"""

import json
import os
from pathlib import Path

import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema
from mlflow.models import Model
from mlflow.pyfunc import load_model
from mlflow.pyfunc.scoring_server import _get_jsonable_obj

folder = Path(os.environ["AZUREML_MODEL_DIR"], os.environ["MLFLOW_MODEL_FOLDER"])
described = Model.load(str(folder))
example = json.loads((folder / described.saved_input_example_info["artifact_path"]).read_text())
assert described.saved_input_example_info["type"] == "dataframe"
sample = pd.read_json(json.dumps(example), orient="split", dtype=False)
columns, types = described.signature.outputs.input_names(), described.signature.outputs.pandas_types()
answer = pd.DataFrame(columns=columns).astype(dict(zip(columns, types, strict=True)))
KINDS = {"double": 0.15, "long": 42}
params = {
    p.name: KINDS[p.dtype.name] if p.default is None else p.default for p in described.signature.params.params
}
model = load_model(str(folder))


def init():
    """The model is loaded already, as there."""


@input_schema("input_data", PandasParameterType(sample, enforce_shape=False, orient="split"))
@input_schema("params", StandardPythonParameterType(params), optional=True)
@output_schema(PandasParameterType(answer, enforce_shape=False, orient="records"))
def run(input_data, params=None):
    return _get_jsonable_obj(model.predict(input_data, params=params), pandas_orient="records")
