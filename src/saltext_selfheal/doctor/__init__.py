"""What may be wrong around the healer, and what to do about it. The checks change nothing."""
