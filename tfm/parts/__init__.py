"""Interchangeable parts of a model: one package per kind, one table entry per part."""
