"""The HTTP endpoint: request formats in front, engines with one protocol behind them."""
