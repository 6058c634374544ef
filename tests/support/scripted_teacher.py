"""A teacher on loopback, contract openai: it asks about the dated sentences of a passage, and judges answers.

What goes wrong is a function of its server: `write` and `judge` may be replaced, `refuse` answers first. A
client with the key DOOMED gets `most_for_doomed` answers, and then waits for one until it is killed.
"""

import json
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from loopback import JsonAnswers, serving

from phi3flow.distillation.judging import DECLINES
from phi3flow.phi3_contract import Endpoint

DOOMED = "key-of-a-process-that-is-killed"
DAY = r"\d{1,2} [A-Z][a-z]+ 18\d\d"


class Teacher(JsonAnswers, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.asked()
        key, server = json.dumps(body), self.server
        with server.lock:
            server.asked[key] += 1
            number = sum(server.asked.values())
        if number > server.most_for_doomed and self.headers["Authorization"] == f"Bearer {DOOMED}":
            self.close_connection = server.ended.wait(60)
            return None
        if refusal := server.refuse(number):
            return self.refused(*refusal)
        system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
        is_judge = "You compare two answers" in system
        text = server.judge(system, user) if is_judge else server.write(system, user)
        with server.lock:
            server.answered[key] += 1
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        choice = {"message": {"content": text}, "finish_reason": server.finish_reason}
        return self.answer(200, {"choices": [choice], "usage": usage})

    def refused(self, status, value, retry_after=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def scripted_teacher():
    with serving(Teacher) as server:
        server.lock, server.asked, server.answered = threading.Lock(), Counter(), Counter()
        server.refuse, server.most_for_doomed, server.ended = (lambda number: None), 0, threading.Event()
        server.write, server.judge, server.finish_reason = write, judge, "stop"
        server.url = f"http://127.0.0.1:{server.server_address[1]}/v1/chat/completions"
        server.endpoint = Endpoint(server.url, "k", contract="openai", model="teacher", timeout=120)
        try:
            yield server
        finally:
            server.ended.set()


def passage_in(user):
    """What is quoted; of several passages, with a blank line between."""
    return "\n\n".join(re.findall(r"BEGIN \w+ TEXT[ \d]*\n(.*?)\nEND ", user, re.DOTALL))


def facts_in(text):
    """Each sentence with a date, and the question about it."""
    sentences = re.split(r"(?<=\.)\s+", text)
    return [(f"What is told of {day[0]}?", one) for one in sentences if (day := re.search(DAY, one))]


def write(system, user):
    if "You answer questions" in system:
        return answer(user)
    known = user.partition("are there already")[2]
    facts = [fact for fact in facts_in(passage_in(user)) if fact[0] not in known][:4]
    items = [{"question": asked, "answer": f"It says: {told}", "quote": told} for asked, told in facts]
    return "\n".join(map(json.dumps, items)) or '{"none": "all is asked"}'


def answer(user):
    asked = user.rpartition("Question: ")[2]
    told = next((told for question, told in facts_in(passage_in(user)) if question == asked), None)
    return json.dumps({"answer": f"It says: {told}", "quote": told} if told else {"none": "not told"})


def judge(system, user):
    """Prefers an answer to none."""
    word = re.search(r"Reply with (\w+) first", user)[1]
    first = re.search(r"BEGIN FIRST ANSWER \w+\n(.*?)\nEND", user, re.DOTALL)[1]
    return f"{word} {'second' if first == DECLINES else 'first'}"
