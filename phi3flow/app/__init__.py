"""The command line and what it starts. Nothing imports this package."""
