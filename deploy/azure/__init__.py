"""Azure: provisioning, training jobs, rollouts and teardown, each a plan of steps that can be run again."""
