"""What has promoted a model that was no better, or worse outside the domain. Nothing here may promote."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from gates import WITHOUT_PACKS

from evaluation.packs.pack_file import PACKS
from evaluation.packs.packs import pack_result
from evaluation.report.comparison import compare_rows
from evaluation.report.render import render_html, render_markdown
from evaluation.scored_rows import Answer, ScoredRow
from evaluation.statistics.intervals import Interval
from evaluation.statistics.scores import Column
from evaluation.statistics.win_rate import Preference, win_rate
from evaluation.verdict.gate import AcceptedRisk, load_gate
from evaluation.verdict.preference_decision import decide_preference
from phi3flow.app.cli import main
from phi3flow.chats.alike.same_questions import question_groups
from phi3flow.core.errors import BadInput
from phi3flow.core.jsonl import write_jsonl

RIGHT, WRONG = "It is in Paris.", "It is in Rome."
SIZES = {"safety": 326, "forgetting": 435}
LONG = (
    "A customer bought a red kettle in our shop on the third of May and says that it does not heat the water "
    "any more, although the lamp is lit. What shall I tell the customer about the warranty of the kettle?"
)


def asking(text):
    return [{"role": "user", "content": text}]


def compared(base, tuned, questions=None, gate=WITHOUT_PACKS, packs=None):
    """The report on answers given as text; None failed."""
    questions = questions or [f"Where is {i}?" for i in range(len(base))]
    sides = [[None if text is None else Answer(text, None) for text in side] for side in (base, tuned)]
    rows = [
        ScoredRow(i + 1, None, None, asking(questions[i]), RIGHT, *both)
        for i, both in enumerate(zip(*sides, strict=True))
    ]
    return compare_rows(rows, gate, packs=packs or {})


def better(**how):
    return compared([WRONG] * 60, [RIGHT] * 60, **how)


def pack(base, tuned):
    """A pack whose rows are 1 (passed), 0 and None (failed)."""
    passed = Column(*(np.array(side, dtype=float) for side in (base, tuned)))
    return pack_result(passed, np.arange(len(base)), slices={}, lost=[])


def packs(**changed):
    """Both packs, passed by both models throughout, but for `changed`."""
    return {name: pack([1] * SIZES[name], [1] * SIZES[name]) for name in PACKS} | changed


def test_the_defaults_promote_a_model_that_is_better_and_lost_nothing():
    assert better(gate=load_gate(), packs=packs()).verdict == "promote"


@pytest.mark.parametrize(
    ("base", "tuned", "word", "why"),
    [
        ([None] * 30, [None] * 30, "not_enough_data", "base answered none of 30 questions"),  # HTTP 400
        ([1] * 326, [None] * 326, "hold", "326 failed questions counted against tuned"),
        ([0] * 326, [None] * 326, "not_enough_data", "no question was answered by both models"),
        ([None] * 326, [1] * 326, "not_enough_data", "base answered none"),
        ([1] * 326, [1] * 286 + [None] * 40, "hold", "worse than the allowed"),
        ([1] * 326, [1] * 314 + [None] * 12, "not_enough_data", "12 failed questions"),
        ([1] * 300 + [None] * 26, [1] * 300 + [0] * 26, "not_enough_data", "26 failed questions"),
        ([1] * 316 + [None] * 10, [1] * 326, "promote", "10 failed questions"),  # at worst nothing gained
        ([1] * 30, [1] * 25 + [0] * 5, "not_enough_data", "-16.7 points"),  # the demo's first report
        ([1] * 30, [1] * 30, "not_enough_data", "43 further questions"),
        ([1] * 326, [1] * 310 + [0] * 16, "not_enough_data", "more questions hardly settle it"),  # -4.9
    ],
)
def test_failures_and_losses_on_a_pack_never_promote(base, tuned, word, why):
    report = better(gate=load_gate(), packs=packs(safety=pack(base, tuned)))
    assert report.verdict == word, report.reasons
    assert why in " ".join(report.reasons)


def test_a_base_that_passes_few_questions_has_little_to_lose_and_the_reasons_say_so():
    few = packs(safety=pack([1] * 10 + [0] * 316, [1] * 10 + [0] * 316))
    report = better(gate=load_gate(), packs=few)
    said = "within the allowed drop of 5.0 points; base passes so few that little can be lost"
    assert said in report.reasons[1]
    assert not any("little can be lost" in one for one in better(gate=load_gate(), packs=packs()).reasons)


def test_a_loss_at_the_limit_is_rarely_promoted():
    rng = np.random.default_rng(0)
    words = []
    for _ in range(300):
        kind = rng.choice(4, size=326, p=[0.83, 0.07, 0.02, 0.08])  # 5 points lost
        lossy = pack((kind < 2).astype(float), np.isin(kind, (0, 2)).astype(float))
        words.append(better(gate=load_gate(), packs=packs(safety=lossy)).verdict)
    assert words.count("promote") <= 15  # 2.5 % of 300, and 3 standard errors


def test_a_named_person_may_accept_what_is_open_and_nothing_else(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text('[accepted_risk]\nby = "Ada"\nreason = "No safety here."\n', encoding="utf-8")
    gate = load_gate(path)
    assert gate.accepted_risk == AcceptedRisk("Ada", "No safety here.")
    opened = packs(safety=pack([1] * 30, [1] * 29 + [0]))
    report = better(gate=gate, packs=opened)
    assert (report.verdict, report.reasons[-1]) == ("promote", "Ada accepts this risk: No safety here.")
    assert "Ada accepts this risk" in render_markdown(report)
    lost = packs(safety=pack([1] * 30, [1] * 10 + [0] * 20))
    assert better(gate=gate, packs=lost).verdict == "hold"
    assert better(gate=gate).verdict == "not_enough_data"
    path.write_text('[accepted_risk]\nby = " "\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"accepted_risk\.by.*\n.*accepted_risk\.reason: missing"):
        load_gate(path)


def test_packs_that_were_not_asked_are_named_in_the_headline():
    assert better(gate=load_gate()).verdict == "not_enough_data"
    report = better()
    assert (report.verdict, report.not_asked) == ("promote", ["safety", "forgetting"])
    for page in (render_html(report, []), render_markdown(report)):
        assert "Promote the tuned model (safety and forgetting: not asked)" in page
    assert "not asked" not in render_markdown(better(gate=load_gate(), packs=packs()))


def test_recorded_answers_are_not_promoted_without_the_packs(tmp_path, capsys):
    chats = [[*asking(f"Where is {i}?"), {"role": "assistant", "content": f"In {i}."}] for i in range(40)]
    write_jsonl(tmp_path / "test.jsonl", [{"messages": chat} for chat in chats])
    for name, text in (("base", "In Rome."), ("tuned", "In {}.")):
        rows = [{"line": i + 1, "answer": text.format(i)} for i in range(40)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    files = [
        word
        for name, file in (("--data", "test"), ("--base", "base"), ("--tuned", "tuned"))
        for word in (name, str(tmp_path / f"{file}.jsonl"))
    ]
    command = ["compare-answers", *files, "--text-metrics", "none", "--json", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 4
    assert "Safety and forgetting: not asked" in json.loads(capsys.readouterr().out)["reasons"][0]
    (tmp_path / "gate.toml").write_text("[gate]\nrequired = []\n", encoding="utf-8")
    assert main([*command, str(tmp_path / "two"), "--gate", str(tmp_path / "gate.toml")]) == 0
    assert "(safety and forgetting: not asked)" in (tmp_path / "two" / "report.md").read_text()


def test_forty_copies_of_four_questions_count_as_four():
    questions = [f"Where is the tower number {i % 4}?" for i in range(160)]
    report = compared([WRONG] * 160, [RIGHT] * 160, questions)
    assert (report.verdict, report.n, report.questions, report.clusters) == ("not_enough_data", 160, 4, 4)
    assert "160 rows, 4 different questions); the CI" in report.reasons[0]
    assert "at least 30 different questions" in report.reasons[0]


def test_copies_that_differ_in_spelling_or_a_word_are_one_question():
    spellings = ["Where is it?", "where is IT", "Where  is it ?!", "Where is\u200b it?", "\uff37here is it?"]
    assert len(set(question_groups(map(asking, [*spellings, "Where is he?"])).tolist())) == 2
    others = [f"{LONG[:60]} number {i} " + " ".join(map(str, range(i, i + 30))) for i in range(0, 900, 100)]
    copies = [f"{LONG} {word}" for word in ("", "Please.", "Thanks.")]
    groups = question_groups(map(asking, [*others, *copies])).tolist()
    assert len(set(groups[:9])) == 9
    assert len(set(groups[9:])) == 1


def test_questions_of_one_template_stay_apart():
    texts = [f"{LONG} The customer's name is {name} Smith." for name in map(str, range(50))]
    assert len(set(question_groups(map(asking, texts)).tolist())) == 50
    answered = [[{"role": "system", "content": LONG}, *asking(f"Where is {i}?")] for i in range(9)]
    assert len(set(question_groups(answered).tolist())) == 9


def test_a_label_and_a_copy_join_one_cluster():
    rows = [
        ScoredRow(i, None, None, asking(text), RIGHT, Answer(WRONG, None), Answer(RIGHT, None), label)
        for i, (text, label) in enumerate([("One?", "a"), ("Two?", "a"), ("two", None), ("Three?", None)])
    ]
    report = compare_rows(rows, WITHOUT_PACKS)
    assert (report.questions, report.clusters) == (3, 2)
    assert "4 rows, 3 different questions in 2 clusters" in report.reasons[0]


def test_failing_just_the_rows_that_base_has_right_does_not_promote():
    base = [RIGHT] * 120 + [WRONG] * 180
    tuned = [None] * 60 + [RIGHT] * 60 + [RIGHT] * 30 + [WRONG] * 150
    gate = replace(WITHOUT_PACKS, max_failed_share=0.5)
    report = compared(base, tuned, gate=gate)
    assert report.difference_ci.low > 0
    assert report.with_failures_ci.low < 0
    assert report.verdict == "not_enough_data"
    assert "not with the failed lines counted against tuned" in report.reasons[0]
    assert compared(base[60:], tuned[60:], gate=gate).with_failures_ci is None


def test_failing_the_questions_without_an_answer_does_not_pass_for_declining():
    unknown = "Sorry, I do not know that."
    rows = [
        ScoredRow(i, None, None, asking(f"{i}?"), RIGHT, Answer(WRONG, None), Answer(RIGHT, None))
        for i in range(60)
    ]
    rows += [
        ScoredRow(i, None, None, asking(f"{i}?"), unknown, Answer(unknown, None), None) for i in range(60, 70)
    ]
    report = compare_rows(rows, replace(WITHOUT_PACKS, max_failed_share=0.5))
    assert report.verdict == "hold"
    assert "Tuned declines 0.0" in report.reasons[0]


def judged(seed, n, share_longer):
    """Equal answers, and a judge who picks the longer one in 80 % of all rows, however much longer it is."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        longer = rng.random() < share_longer
        chars = 500 + (1 if longer else -1) * rng.randint(1, 160)
        made.append(Preference(str(i), float(rng.random() < (0.8 if longer else 0.2)), 500, chars))
    return made


@pytest.mark.parametrize("share_longer", [1.0, 0.95, 0.8])
def test_a_judge_who_likes_length_promotes_no_equal_model(share_longer):
    verdicts = [decide_preference(win_rate(judged(i, 1000, share_longer)), WITHOUT_PACKS) for i in range(40)]
    assert [one.verdict for one in verdicts].count("promote") <= 3  # 2.5 % of 40, and 2 standard errors
    if share_longer == 1:
        assert all("(length bias)" in " ".join(one.reasons) for one in verdicts)


def test_forty_votes_on_one_question_count_as_one(tmp_path, capsys):
    def vote(i, question):
        row = {"id": f"v{i}", "prompt": asking(question), "vote": "tuned"}
        return row | {"base_chars": 100, "tuned_chars": 97 + i % 7}

    write_jsonl(tmp_path / "same.jsonl", [vote(i, "Where is it?") for i in range(40)])
    assert main(["verdict", str(tmp_path / "same.jsonl"), "--json"]) == 4
    said = json.loads(capsys.readouterr().out)
    assert (said["n"], said["clusters"]) == (40, 1)
    assert "40 rows, 1 independent" in said["reasons"][0]
    write_jsonl(tmp_path / "other.jsonl", [vote(i, f"Where is {i}?") for i in range(40)])
    assert main(["verdict", str(tmp_path / "other.jsonl"), "--json"]) == 0


def test_clusters_widen_win_rates_as_they_do_exact_match():
    rng = random.Random(1)
    once = [Preference(str(i), float(rng.random() < 0.7), 100, 95 + i % 11) for i in range(60)]
    copies = [replace(row, id=f"{row.id}-{k}", cluster=row.id) for row in once for k in range(5)]
    alone, copied = win_rate(once), win_rate(copies)
    assert copied.clusters == 60
    assert copied.standard_error == pytest.approx(alone.standard_error, rel=0.03)
    assert copied.win_rate_ci == pytest.approx(alone.win_rate_ci, abs=0.03)
    assert copied.length.balanced_ci == pytest.approx(alone.length.balanced_ci, abs=0.03)
    assert copied.length.win_rate_ci == pytest.approx(alone.length.win_rate_ci, abs=0.03)


def test_rows_without_a_preference_count_as_lost():
    rate = win_rate(judged(3, 400, 0.5))
    above = Interval(0.503, 0.6)
    length = replace(rate.length, win_rate_ci=above, balanced_ci=above)
    rate = replace(rate, win_rate_ci=above, length=length)
    assert decide_preference(rate, WITHOUT_PACKS).verdict == "promote"
    lost = decide_preference(rate, WITHOUT_PACKS, unanswered=4)
    assert lost.verdict == "not_enough_data"
    assert "4 rows without a preference as lost" in " ".join(lost.reasons)


def test_the_words_of_the_reasons():
    """A hold ends with what to do, and no interval that excludes zero is called chance."""
    reports = [
        better(gate=load_gate(), packs=packs(safety=pack([1] * 326, [1] * 200 + [0] * 126))),
        compared([RIGHT] * 60, [WRONG] * 60, gate=load_gate(), packs=packs()),
        compared([WRONG] * 60, [WRONG] * 60),
        compared([WRONG] * 60, [RIGHT] * 50 + [None] * 10),
    ]
    for report in reports:
        assert report.verdict == "hold"
        assert report.reasons[-1].startswith("Next: ")
        assert sum(reason.startswith("Next: ") for reason in report.reasons) == 1
        assert not {"surely", "chance"} & set(" ".join(report.reasons).lower().split())
