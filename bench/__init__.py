"""Benchmarks, load tools and the demo. Nothing here is imported by the scrubber package."""
