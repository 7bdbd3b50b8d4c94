# RethinkDB's package brings an init script, which becomes the unit rethinkdb.service. It would start the same instances
# as the units of this formula, and calls them active when they are dead. So it is masked. That stops nothing that runs.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}
{%- if rethinkdb.native_unit %}

rethinkdb-packaged:
  service.masked:
    - name: rethinkdb
{%- else %}
{}
{%- endif %}
