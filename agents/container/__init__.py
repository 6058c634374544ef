"""A flow as a container: the image, its WSGI app, and the Azure Container App that runs it."""
