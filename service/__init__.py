"""The edge: bytes in, 202 out. It records what callers ask for and never talks to a provider."""
