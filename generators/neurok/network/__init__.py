"""The network, its sizes and its weights."""
