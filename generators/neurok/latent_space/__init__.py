"""Space of states of one object, its derivatives, and points tracked through it."""
