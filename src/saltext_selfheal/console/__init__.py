"""What people are shown of the healer, as typed data, and how they ask it for something. No Salt.

Views are frozen dataclasses: `told` makes the dict that a runner returns, and a page or a metric may read the fields.
"""
