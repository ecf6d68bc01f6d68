"""Parts and joints estimated from motions, against the truth."""
