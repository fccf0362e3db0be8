"""What takes the mail: cheap, counting, each in a process of its own."""
