"""The NeuROK network, its sizes and its weights."""
