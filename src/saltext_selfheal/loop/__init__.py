"""The engine's loop, and the things in Salt that it talks to: the event bus and the job cache."""
