"""Personal data by pattern: what counts, what does not, and that reading takes time linear in the length."""

import pytest
from regex_steps import StepCounter

from phi3flow.chats.chat import Chat
from phi3flow.chats.personal_data import REPLACED, personal_data_in, without_personal_data

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
    "sk-",
    "eyJaaaaaaaaaa.",
    "-----BEGIN PRIVATE KEY-----",
    "password: ",
    "my name is A",
    "Mr A ",
    "regards,\nA",
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


def test_the_arguments_of_a_call_are_looked_at():
    call = {"function": {"name": "mail", "arguments": {"to": "ada@contoso.com"}}}
    asked = {"role": "user", "content": "Write to Ada."}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert personal_data_in(Chat((asked, answer))) == {"e-mail addresses"}


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


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("Ich heiße Jürgen Müller. Grüße\nJürgen", "Ich heiße [name]. Grüße\n[name]"),
        ("Dr. Grace Hopper wrote; ask Grace.", "Dr. [name] wrote; ask [name]."),
        ("Password: hunter22, api_key=abc123def456", "Password: [key], api_key=[key]"),
        ("reset the password in 2 steps", "reset the password in 2 steps"),
        ("AKIAABCDEFGHIJKLMNOP", "[key]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIab=\n-----END RSA PRIVATE KEY-----", "[key]"),
        ("Thanks\nThe printer works again", "Thanks\nThe printer works again"),
        ("me@example.com", "me@example.com"),
    ],
)
def test_what_a_pattern_finds_is_replaced_by_the_name_of_its_kind(text, replaced):
    assert without_personal_data([text]).texts == [replaced]


@pytest.mark.parametrize("attack", ATTACKS)
def test_reading_takes_time_linear_in_the_length(attack):
    def steps(length):
        text = (attack * length)[:length]
        counters = [StepCounter(kind.pattern) for kind in REPLACED]
        for counter in counters:
            counter.search(text)
        return sum(counter.steps for counter in counters)

    assert steps(1200) < 2.5 * steps(600)
