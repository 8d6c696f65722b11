"""Edits of coordinates and what becomes of the answers."""
