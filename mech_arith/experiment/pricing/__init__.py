"""What cells cost, before they are run: no weights are loaded, and nothing is written."""
