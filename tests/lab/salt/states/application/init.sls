# The lab's application servers need nothing from Salt; a highstate of the whole site should still succeed.
application:
  test.nop: []
