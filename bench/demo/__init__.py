"""The demo: an origin, the gateway before it, people, and a bounded flood. Run as `python -m bench.demo`."""
