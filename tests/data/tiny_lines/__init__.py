"""A dataset builder must stand in a folder of its own for TFDS to find its name."""
