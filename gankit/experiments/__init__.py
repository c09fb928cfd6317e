"""Reads experiments from files into validated settings; errors name file and line."""
