"""The tests of published claims: one file for each, called as its preset."""
