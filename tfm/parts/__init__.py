"""The interchangeable pieces: one folder a kind, one file a piece, one row a name."""
