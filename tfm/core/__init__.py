"""Foundations without transformers: tables, typed configs, axis letters, precision, errors."""
