"""The workflow: a login by OIDC dies within an hour or so, so nothing waits on one for longer."""

import re
from pathlib import Path

import yaml

WORKFLOW = Path(__file__).parents[2] / ".github" / "workflows" / "azure.yml"
LOGIN, LIFETIME_MINUTES = "azure/login@", 60


def jobs():
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def test_submit_wait_and_deploy_are_jobs_with_logins_of_their_own():
    needs = {name: job.get("needs") for name, job in jobs().items()}
    assert [needs[name] for name in ("wait", "deploy", "compare", "promote")] == [
        "submit",
        "wait",
        "deploy",
        "compare",
    ]
    for name, job in jobs().items():
        logged_in = False
        for step in job["steps"]:
            logged_in = logged_in or step.get("uses", "").startswith(LOGIN)
            assert logged_in or "phi3flow azure" not in step.get("run", ""), name


def test_no_login_is_waited_on_for_longer_than_it_lives():
    before = None
    for step in jobs()["wait"]["steps"]:
        if minutes := re.search(r"azure wait --minutes (\d+)", step.get("run", "")):
            assert before is not None and before.startswith(LOGIN)
            assert int(minutes[1]) < LIFETIME_MINUTES
        before = step.get("uses", "")
    waiting = [step for step in jobs()["submit"]["steps"] if "azure train" in step.get("run", "")]
    assert all("--no-wait" in step["run"] for step in waiting) and waiting
