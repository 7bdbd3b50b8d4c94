"""The doctor: it checks what may be wrong around the healer, and says what to do. The checks change nothing."""
