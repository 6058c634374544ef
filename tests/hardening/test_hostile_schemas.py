"""The schema of `response_format` held Python's lock: 5 s for 20 000 parts, minutes for a pattern."""

import time

import pytest

from deploy.scoring.http.json_schemas import MANY, MAX_PARTS, MAX_VALUES, problem_of

TEXT = {"type": "string"}
LARGEST = {"properties": {f"p{at}": TEXT for at in range(MAX_PARTS - 1)}}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {f"p{at}": TEXT for at in range(20_000)}}, f"more than {MAX_PARTS} parts"),
        ({"required": [f"p{at}" for at in range(60_000)]}, f"{MAX_VALUES} values"),
        ({"pattern": "(a|b)?" * 40_000}, f"pattern: more than {MANY} characters"),
        ({"properties": {"a": {"pattern": "a" * (MANY + 1)}}}, f"pattern: more than {MANY} characters"),
    ],
    ids=["parts", "names", "pattern", "inner pattern"],
)
def test_a_schema_that_is_too_large_is_refused_before_it_is_checked(schema, words):
    began = time.thread_time()
    assert words in problem_of(schema)
    assert time.thread_time() - began < time_of_the_largest()


@pytest.mark.parametrize("shape", [5, [], "x", None, {"a": 5}])
@pytest.mark.parametrize("keyword", ["properties", "$defs", "anyOf", "items", "enum", "required", "pattern"])
def test_a_keyword_of_another_shape_is_refused_or_taken_and_never_fails(keyword, shape):
    assert isinstance(problem_of({keyword: shape}), str | None)


def time_of_the_largest():
    """Seconds that the largest schema takes which is checked."""
    began = time.thread_time()
    assert problem_of(LARGEST) is None
    return time.thread_time() - began
