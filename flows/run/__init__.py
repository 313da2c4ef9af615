"""The course of a run, from its assignment to its final state."""
