"""Layers, convolutions and activations that differentiate twice cheaply, gradients of scores, compilation."""
