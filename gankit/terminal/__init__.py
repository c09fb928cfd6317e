"""What a person at a terminal reads: lines, progress bars, help."""
