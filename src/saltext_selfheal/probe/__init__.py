"""The probe: it looks at nodes and clusters, in one asyncio loop of its own. No Salt."""
