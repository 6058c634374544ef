"""The build context of the GPU image."""
