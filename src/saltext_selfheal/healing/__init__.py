"""The pure core: no Salt, no socket, no file, no clock, no thread, no randomness of its own."""
