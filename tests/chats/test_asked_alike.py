"""Which test questions the training chats ask in nearly the same words."""

import random

from phi3flow.chats.alike.asked_alike import MOST, asked_alike
from phi3flow.chats.chat import Chat

GREETINGS = (
    "Hi, {}",
    "Hello, {} Thanks!",
    "quick question: {} thx",
    "{} cheers",
    "Sorry to bother you but {}",
)
DISHES = ("goulash", "risotto", "ramen", "lentil soup", "banana bread", "carbonara", "dal", "scones")
QUESTIONS = (
    "is {} vegetarian?",
    "how long does {} take in the oven?",
    "can I freeze what is left of the {}?",
)


def asked(question, answer="Yes, it is.", system="You are a cook."):
    turns = [("system", system), ("user", question), ("assistant", answer)]
    return Chat(tuple({"role": role, "content": text} for role, text in turns))


def kitchen(seed, dishes):
    draw = random.Random(seed)
    plain = [question.format(dish) for dish in dishes for question in QUESTIONS]
    return [asked(draw.choice(GREETINGS).format(question)) for question in plain]


def test_the_same_question_under_another_greeting_is_alike_and_another_dish_is_not():
    train = [chat for seed in range(8) for chat in kitchen(seed, DISHES[:6])]
    assert asked_alike(train, kitchen(8, DISHES[6:])).alike == []
    again = [
        asked("can I freeze what is left of the goulash? cheers"),
        asked("can I freeze what is left of the ramen?"),
    ]
    found = asked_alike(train, [*kitchen(9, DISHES[6:]), *again])
    assert (found.alike, found.of) == ([6, 7], 8)


def test_only_what_users_say_counts_and_answers_and_system_messages_do_not():
    train = kitchen(0, DISHES)
    stranger = asked("Where is the fire exit?", "Yes, it is.", system=train[0].prompt[1]["content"])
    assert asked_alike(train, [stranger]).alike == []


def test_of_many_tests_a_stated_number_is_looked_at():
    train = kitchen(0, DISHES)
    found = asked_alike(train, [train[0]] * (3 * MOST))
    assert found.of == len(found.alike) == MOST
    assert found.alike[:3] == [0, 3, 6]


def test_questions_without_a_word_are_like_nothing():
    assert asked_alike([asked("🙂" * i) for i in range(1, 9)], [asked("🙂"), asked("?!")]).alike == []
