# The files go. The account in the database stays: other masters may use it.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}

rethinkdb-account-removed:
  file.absent:
    - name: {{ rethinkdb.paths.account | yaml_dquote }}
