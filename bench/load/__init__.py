"""What posts, fills and drips, each in a process of its own."""
