"""The same flows on Microsoft Agent Framework, for the day Prompt flow is gone.

A flow folder stays as it is: `flow.dag.yaml` names inputs, outputs and Python nodes. `workflow` builds an
Agent Framework workflow from it, one for each request; `host` answers as `pf flow serve` does. All of it runs
in an environment of its own (`make agents`): Prompt flow and Agent Framework want different OpenTelemetry
versions.
"""
