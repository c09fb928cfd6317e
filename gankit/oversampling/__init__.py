"""Generated images inside pipelines of imbalanced-learn, where cross-validation cannot leak them."""
