"""The name under which the foundry commands use `deploy.azure.steps.problems.explaining`."""

from deploy.azure.steps.problems import explaining

explained = explaining
