"""Measurements on the lab's site: ``python -m tests.bench``. No test depends on them."""
