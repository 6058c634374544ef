"""What every other package stands on: errors, settings, files, processes."""
