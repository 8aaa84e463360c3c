"""A dataset builder in a separate folder, as TFDS needs it to find its name."""
