"""The HTTP endpoint: request formats in front, engines behind one class."""
