"""Gates for tests that are about something else than the packs."""

from dataclasses import replace

from evaluation.verdict.gate import load_gate

WITHOUT_PACKS = replace(load_gate(), required=[])
