"""What people are shown of the healer, as typed data, and how they ask it for something. No Salt.

What is shown are frozen dataclasses. Their method `told` makes the dict that a runner returns. A web page or a metric
may read the fields instead.
"""
