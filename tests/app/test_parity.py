"""What `migrate check` takes for the same answer."""

import json

import pytest

from phi3flow.app.parity import Asked, Pair, Told


def stream(*pieces, name="answer"):
    return Told(200, "".join(f"data: {json.dumps({name: piece})}\n\n" for piece in pieces), ended=True)


def equal(one, other):
    return Pair(Asked("line 1", b"{}"), one, other).equal


def test_where_an_endpoint_cuts_its_stream_makes_no_difference():
    assert equal(stream("The", " symbol of", " h", "yd", "rogen"), stream("The symbol", " of hydrogen"))


@pytest.mark.parametrize(
    "other",
    [
        stream("The symbol of", "hydrogen"),
        stream("The symbol of hydrogen", name="reply"),
        stream("The symbol of hydrogen")._replace(ended=False),
        stream("The symbol of hydrogen")._replace(status=500),
        Told(200, json.dumps({"answer": "The symbol of hydrogen"}), ended=True),
        Told(200, "data: [DONE]\n\n", ended=True),
    ],
)
def test_words_names_ends_and_statuses_do(other):
    assert not equal(stream("The symbol", " of hydrogen"), other)


def test_other_outputs_between_the_pieces_keep_their_place():
    score = Told(200, 'data: {"score": 1}\n\n', ended=True)
    one = stream("a", "b").text + score.text + stream("c").text
    other = stream("a").text + score.text + stream("b", "c").text
    assert not equal(Told(200, one, ended=True), Told(200, other, ended=True))
