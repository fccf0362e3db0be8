"""One file a scenario; each returns rows."""
