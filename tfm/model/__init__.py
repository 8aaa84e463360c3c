"""Models assembled from parts: the spec, its parameters, `apply`, caches and counts."""
