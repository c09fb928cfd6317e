"""Decoding, label tables, resizing and pictures."""
