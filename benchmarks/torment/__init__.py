"""The parts of the soak: what its tasks do, its own books, one round, and what may be left afterwards."""
