# A database node: its config file and its running server. What differs per node stands in pillar.

{% set node = pillar['rethinkdb'] %}

rethinkdb-config:
  file.managed:
    - name: {{ node['config_path'] | yaml_encode }}
    - source: salt://rethinkdb/rethinkdb.conf.jinja
    - template: jinja
    - mode: '0600'
    - makedirs: true
    - show_changes: false

# No `watch` on the file: a serving database is not restarted because a file changed. A dead one starts with the
# right file because of `require`.
rethinkdb:
  service.running:
    - require:
      - file: rethinkdb-config
