"""What knows nothing of transformers: tables, typed configs, axes, precision, trees, errors."""
