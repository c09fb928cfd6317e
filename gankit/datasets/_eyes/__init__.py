"""Shared code of the data set `eyes`: subjects, optics, raters, renderer and estimator."""
