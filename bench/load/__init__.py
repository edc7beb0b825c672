"""Load tools: people and floods. Every socket they open goes through guard.Route, so nothing leaves loopback."""
