"""How nodes and clusters are looked at, in one asyncio loop of its own. No Salt."""
