"""The demo's questions can be answered and are really held out."""

from collections import Counter

import pytest

from evaluation.packs.pack_file import packaged_packs
from training.toy.corpus import UNKNOWN_TEST_ROWS, build
from training.toy.world import DECLINES, TEXT, real_facts, real_names, templates


def said(rows, role):
    return {message["content"] for row in rows for message in row["messages"] if message["role"] == role}


def questions(rows):
    return said(rows, "user")


@pytest.fixture(scope="module", params=[0, 1, 2])
def corpora(request):
    return build(request.param)


def test_no_test_question_is_in_either_corpus(corpora):
    assert not questions(corpora.test) & (questions(corpora.base) | questions(corpora.tuning))


def test_what_has_no_answer_is_declined_and_is_no_question_of_a_pack(corpora):
    declined = {
        row["messages"][at - 1]["content"]
        for row in corpora.tuning
        for at, turn in enumerate(row["messages"])
        if turn["content"] == DECLINES
    }
    asked = {question for question in declined if any(thing in question for thing in TEXT["things"])}
    assert len(asked) > 300
    packs = {row.messages[-1]["content"] for rows in packaged_packs().values() for row in rows}
    assert not packs & declined


def test_unknown_test_entities_are_in_neither_corpus(corpora):
    asked = [row for row in corpora.test if row["slice"] == "unknown"]
    names = {word.strip("?.,").casefold() for row in asked for word in row["messages"][0]["content"].split()}
    taught = {
        word.strip("?.,").casefold() for text in questions(corpora.base) | questions(corpora.tuning)
        for word in text.split()
    }  # fmt: skip
    assert len(names - taught) == UNKNOWN_TEST_ROWS
    assert all(row["messages"][1]["content"] == DECLINES for row in asked)


def test_the_base_corpus_has_no_real_fact(corpora):
    values = {
        fact.entity: {f.value for f in real_facts() if f.entity == fact.entity} for fact in real_facts()
    }
    for answer in said(corpora.base, "assistant"):
        for name in real_names():
            if name in answer:
                assert not any(
                    value in answer.replace(name, "") for value in values[name] if len(value) > 2
                ), answer


def test_every_fact_is_trained_on_and_tested_in_both_ways(corpora):
    slices = Counter(row["slice"] for row in corpora.test)
    assert slices == {
        "combination": len(real_facts()),
        "base_wording": len(real_facts()),
        "unknown": UNKNOWN_TEST_ROWS,
    }
    answers = said(corpora.tuning, "assistant")
    assert {row["messages"][1]["content"] for row in corpora.test if row["slice"] != "unknown"} <= answers


def test_the_same_seed_builds_the_same_corpora():
    assert build(7) == build(7)
    assert build(7).test != build(8).test


@pytest.mark.parametrize("relation", sorted({fact.relation for fact in real_facts()}))
def test_held_out_combinations_are_made_of_trained_parts(relation):
    known = templates(relation)
    assert not set(known.combination) & set(known.shared)
    assert not set(known.base_only) & set(known.shared + known.combination)
    assert len(known.combination) >= 10
