"""The pure core, which decides. It uses no Salt, no socket, no file, no clock, no thread and no randomness."""
