"""Azure AI Foundry: project, connections, flows, and batch runs in the cloud."""
