"""The flows. Nodes import the contract module by its bare name, since Prompt flow puts it beside them."""

import sys

from phi3flow import phi3_contract

sys.modules.setdefault("phi3_contract", phi3_contract)
