"""Models whose inner values are known."""
