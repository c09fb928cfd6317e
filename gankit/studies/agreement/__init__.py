"""Generators of images on which ever more raters agree."""
