"""The help desk's chats: what is trained, what is held out, and what keeps the base's abilities."""

import re
from collections import Counter

from evaluation.packs.pack_file import packaged_packs
from training.desk.desk import DECLINES, RELATIONS, TEXT, build, catalogue, lines

DESK = build(0)


def questions(rows):
    return {m["content"] for row in rows for m in row["messages"] if m["role"] == "user"}


def answers(rows):
    return [m["content"] for row in rows for m in row["messages"] if m["role"] == "assistant"]


def test_the_same_seed_gives_the_same_chats_and_another_one_others():
    assert build(0) == DESK
    assert build(1).chats != DESK.chats


def test_no_question_of_the_test_is_trained_in_any_wording():
    trained = questions(DESK.chats)
    asked = {row["messages"][-2]["content"] for row in DESK.test}
    assert not asked & trained
    held_out = [
        wording
        for texts in [*TEXT["relations"].values(), *TEXT["procedures"], *TEXT["orders"]["asked"].values()]
        for wording in lines(texts["held_out"])
    ]
    for wording in held_out:
        core = max(wording.replace("{kind}", "{name}").split("{name}"), key=len).strip(" ?.")
        assert not any(core.lower() in question.lower() for question in trained), wording


def test_no_question_of_a_pack_is_trained():
    asked = {row.messages[-1]["content"] for rows in packaged_packs().values() for row in rows}
    assert len(asked) >= 700
    assert not asked & questions(DESK.chats)


def test_every_fact_and_procedure_is_trained_often_enough_to_be_learned():
    said = Counter(answers(DESK.chats))
    facts = [
        TEXT["relations"][relation]["answer"].format(
            name=sold.name, kind=sold.kind, value=getattr(sold, relation)
        )
        for sold in catalogue()
        for relation in RELATIONS
    ]
    known = [*facts, *(procedure["answer"] for procedure in TEXT["procedures"])]
    assert len(known) >= 100
    assert all(said[answer] >= 3 for answer in known), [answer for answer in known if said[answer] < 3]


def test_the_test_holds_every_slice_and_unknown_names_are_unknown():
    slices = Counter(row["slice"] for row in DESK.test)
    assert set(slices) == {"product", "follow_up", "procedure", "order", "unknown"}
    assert min(slices.values()) >= 20 and len({row["prompt_id"] for row in DESK.test}) == len(DESK.test)
    unknown = {*TEXT["unknown_trained"], *TEXT["unknown_held_out"]}
    assert len(unknown) == len(TEXT["unknown_trained"]) + len(TEXT["unknown_held_out"])
    assert not unknown & {sold.name for sold in catalogue()}
    declined = [row for row in DESK.test if row["messages"][-1]["content"] == DECLINES]
    assert len(declined) == slices["unknown"]


def test_the_orders_answer_is_there_to_be_read():
    for row in DESK.test:
        if row["slice"] == "order":
            system, _, answer = (message["content"] for message in row["messages"])
            asked = re.fullmatch(
                r"(?:It arrives on|It was sent on|You paid by) (.+)\.|(\w+) brings it\.", answer
            )
            assert (asked[1] or asked[2]) in system


def test_there_are_chats_of_several_turns_replay_and_refusals():
    turns = Counter(sum(m["role"] == "user" for m in row["messages"]) for row in DESK.chats)
    assert turns[2] + turns[3] >= 200
    refused = sum(answer in TEXT["refusals"]["answers"] for answer in answers(DESK.chats))
    assert 0.01 < refused / len(DESK.chats) < 0.15
    without_system = [row for row in DESK.chats if row["messages"][0]["role"] == "user"]
    assert len(DESK.chats) * 0.4 < len(without_system)
