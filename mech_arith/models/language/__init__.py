"""Pretrained language models."""
