"""From images to a proposed experiment, with its reasons."""
