base:
  'db*':
    - rethinkdb
  'app*':
    - application
