"""When Microsoft ends what this project can use, as its documentation said in November 2026."""

from datetime import date

SERVERLESS_PHI3_ENDED = date(2025, 8, 30)
PROMPT_FLOW_DEVELOPMENT_ENDED = date(2026, 4, 20)
PROMPT_FLOW_READ_ONLY = date(2027, 4, 20)
