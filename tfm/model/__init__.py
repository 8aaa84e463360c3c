"""How pieces become a model: spec, embedding, block, transformer, heads, counts."""
