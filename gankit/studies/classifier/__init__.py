"""Train a classifier on real images, and with oversampling, classical augmentation or generated images."""
