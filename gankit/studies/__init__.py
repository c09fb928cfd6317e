"""Whole experiments over many trainings: jobs that resume, and what is made of their results."""
