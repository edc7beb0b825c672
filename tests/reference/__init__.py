"""Slow, obvious versions of the native concepts: the same cases run through both."""
