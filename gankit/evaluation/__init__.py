"""From images to values with standard errors."""
