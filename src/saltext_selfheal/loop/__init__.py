"""The engine's loop and what it talks to: Salt's event bus, Salt's job cache."""
