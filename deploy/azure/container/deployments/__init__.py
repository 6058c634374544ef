"""Deployment files that `az ml` and azure-ai-ml read as they are: an endpoint, a CPU and a GPU deployment."""
