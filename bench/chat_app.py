"""Chat page: delay between the endpoint's first token and the browser's, and 20 users at once.

    make bench-ui [ARGS="--questions 20 --sessions 20"]

Uses an endpoint that records when it sends its first token, the real `pf flow serve`, Streamlit and Chromium,
all on this machine and so on one clock. First one page asks question after question; then many browsers ask
at the same moment, and every answer is checked against its question. Ends with one JSON object: the median
delay in milliseconds, against the limit of 300.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median, quantiles

from playwright.sync_api import sync_playwright

from custom_connections.promptflow_home import enter_home
from custom_connections.store import store_connection
from phi3flow.app.services import chat_page, endpoint_of, served_flow, with_own_keys
from phi3flow.core.flow_folder import resolve_flow
from phi3flow.core.service_stack import Stack
from phi3flow.core.settings import Settings
from phi3flow.core.sides import TUNED

TOKENS, SECONDS_BETWEEN = 60, 0.05
LIMIT_MS = 300
FLOW_PORT, UI_PORT = 18088, 18588
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
# The browser's clock when the answer to each question shows its first token.
NOTE_FIRST = """() => {
    window.first = {};
    new MutationObserver(() => {
        for (const answer of document.querySelectorAll('.phi3flow-answer')) {
            const found = answer.textContent.match(/^\\s*(\\S+)#0 /);
            if (found && !window.first[found[1]]) window.first[found[1]] = Date.now();
        }
    }).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


class Endpoint(BaseHTTPRequestHandler):
    """Contract openai: answers with numbered copies of the question. `sent`: times of the first tokens."""

    protocol_version = "HTTP/1.1"
    sent: dict[str, float] = {}  # noqa: RUF012 - shared by all requests

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(TOKENS):
            time.sleep(SECONDS_BETWEEN)
            self.sent.setdefault(question, time.time())
            self._event(json.dumps({"choices": [{"delta": {"content": f"{question}#{number} "}}]}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data):
        event = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 64


@contextmanager
def stack(folder):
    """Run endpoint, served flow and page; yields the page's address."""
    with Server(("127.0.0.1", 0), Endpoint) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        port = endpoint.server_address[1]
        chosen = Settings(endpoint_port=port, flow_port=FLOW_PORT, ui_port=UI_PORT)
        settings = with_own_keys(chosen, folder / "home")
        flow = resolve_flow("chat", folder / "tuned", connection=TUNED.connection)
        enter_home(settings)
        store_connection(TUNED.connection, endpoint_of(TUNED, settings))
        with Stack(
            served_flow(flow, TUNED, settings, folder / "flow.log"),
            chat_page(folder / "run", settings, folder / "page.log"),
        ):
            yield f"http://127.0.0.1:{UI_PORT}"
        endpoint.shutdown()


def opened(browser, url):
    page = browser.new_context().new_page()
    page.goto(url)
    page.get_by_placeholder("Ask").wait_for(timeout=120_000)
    page.evaluate(NOTE_FIRST)
    return page


def ask(page, question):
    page.get_by_placeholder("Ask").fill(question)
    page.keyboard.press("Enter")


def answer(page, question):
    """Wait for the complete answer; returns its words."""
    last = page.locator(".phi3flow-answer").last
    last.filter(has_text=f"{question}#{TOKENS - 1}").wait_for(timeout=120_000)
    page.get_by_role("button", name="Regenerate").wait_for(timeout=120_000)
    return last.inner_text().split()


def lag_ms(page, question):
    return page.evaluate("window.first")[question] - 1000 * Endpoint.sent[question]


def right(words, question):
    return words == [f"{question}#{number}" for number in range(TOKENS)]


def one_after_the_other(browser, url, questions):
    page = opened(browser, url)
    lags = []
    for number in range(questions):
        question = f"alone{number}"
        ask(page, question)
        assert right(answer(page, question), question), question
        lags.append(lag_ms(page, question))
        print(f"question {number + 1}: {lags[-1]:.0f} ms", file=sys.stderr, flush=True)
    page.context.close()
    return lags


def all_at_once(browser, url, sessions):
    pages = {f"together{number}": opened(browser, url) for number in range(sessions)}
    for question, page in pages.items():
        page.get_by_placeholder("Ask").fill(question)
    for page in pages.values():
        page.keyboard.press("Enter")
    mixed = [question for question, page in pages.items() if not right(answer(page, question), question)]
    sent = [Endpoint.sent[question] for question in pages]
    return [lag_ms(page, question) for question, page in pages.items()], mixed, max(sent) - min(sent)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=20)
    args = parser.parse_args()
    with ExitStack() as all_of_it:
        folder = Path(all_of_it.enter_context(tempfile.TemporaryDirectory()))
        url = all_of_it.enter_context(stack(folder))
        playwright = all_of_it.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        alone = one_after_the_other(browser, url, args.questions)
        together, mixed, spread = all_at_once(browser, url, args.sessions)
        browser.close()
    figures = {
        "bench": "ui",
        "ours": round(median(alone)),
        "baseline": LIMIT_MS,
        "ratio": round(median(alone) / LIMIT_MS, 2),
        "unit": "ms from the endpoint's first token to the browser's, median",
        "p90_ms": round(quantiles(alone, n=10)[-1]),
        "sessions": args.sessions,
        "sessions_median_ms": round(median(together)),
        "sessions_max_ms": round(max(together)),
        "sessions_first_tokens_within_s": round(spread, 2),
        "mixed": mixed,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
