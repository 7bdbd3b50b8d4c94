"""What is remembered, in one SQLite file, and how others ask and read there. No Salt."""
