"""Coverage-guided fuzzing of what reads the bytes of others: `make fuzz`. Each `make test` replays what it found."""
