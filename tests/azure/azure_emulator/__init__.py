"""Azure on 127.0.0.1: enough for the real SDKs to provision, train, deploy and tear down.

`python -m azure_emulator --state DIR` starts it; `README.md` beside this package says how clients reach it.
Its answers are what azure-ai-ml, azure-identity and azure-mgmt accept, not recorded Azure traffic.
"""
