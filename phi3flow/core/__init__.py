"""Used by every other package: errors, settings, files, processes."""
