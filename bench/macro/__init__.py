"""Scrubber, nginx and HAProxy side by side on this machine: scenarios, paired rounds, figures, what is written of them.

A scenario is a folder here: its purpose and load in __init__.py, a configuration for each system beside it; and one
line in bench/macro/scenarios.py.
"""
