"""The configuration file: its structs, reading it, and what `postroom check` says about it."""
