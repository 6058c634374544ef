"""Personal data by pattern: what counts, what does not, and that reading takes time linear in the length."""

import pytest
from regex_steps import StepCounter

from phi3flow.chats.chat import Chat
from phi3flow.chats.personal_data import KINDS, personal_data_in

ATTACKS = [
    "a",
    "a.",
    "a@",
    "a@a.",
    "1",
    "1 ",
    "1-",
    "+1",
    "0049 ",
    "030/",
    "(030) ",
    "123-45-",
    "DE00 ",
    "AA00A",
    "A0",
]


def kinds_in(*texts):
    roles = ("user", "assistant") * len(texts)
    return personal_data_in(
        Chat(tuple({"role": r, "content": t} for r, t in zip(roles, texts, strict=False)))
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to ada.lovelace+home@contoso.co.uk, please.", "e-mail addresses"),
        ("my number: +49 (0)30 901820", "phone numbers"),
        ("0044 20 7946 0018?", "phone numbers"),
        ("ruf 030/90 18 20 11 an", "phone numbers"),
        ("call (212) 555-0147 now", "phone numbers"),
        ("DE89 3704 0044 0532 0130 00", "IBANs"),
        ("GB29NWBK60161331926819", "IBANs"),
        ("card 4111-1111-1111-1111", "card numbers"),
        ("SSN 078-05-1120", "US social security numbers"),
    ],
)
def test_each_kind_is_found_and_taken_for_one_kind_only(text, kind):
    assert kinds_in("Hello", text) == {kind}


@pytest.mark.parametrize(
    "text",
    [
        *("me@example.com", "printer@host.invalid", "2026-11-27 10:15", "09-11-2026", "call 4444"),
        *("4111 1111 1111 1112", "0000 0000 0000 0000", "DE88 3704 0044 0532 0130 00", "1.22.333.4444"),
        *("EUR 12000 or 3 %", "order 1234567890", "10.0.0.1", "INC86913", "2 x 500 ml"),
    ],
)
def test_numbers_and_addresses_that_belong_to_nobody_are_not(text):
    assert kinds_in(f"Is it {text} or not?") == frozenset()


def test_every_message_of_a_chat_is_read():
    assert kinds_in("a@contoso.com", "Thanks.", "and 078-05-1120") == {
        "e-mail addresses",
        "US social security numbers",
    }


@pytest.mark.parametrize("attack", ATTACKS)
def test_reading_takes_time_linear_in_the_length(attack):
    def steps(length):
        text = (attack * length)[:length]
        counters = [StepCounter(kind.pattern) for kind in KINDS]
        for counter in counters:
            counter.search(text)
        return sum(counter.steps for counter in counters)

    assert steps(1200) < 2.5 * steps(600)
