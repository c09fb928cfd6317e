"""Test by cross-validation whether generated images, of gankit or of any other program, help a classifier."""
