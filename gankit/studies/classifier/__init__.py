"""Whether generated images help a classifier."""
