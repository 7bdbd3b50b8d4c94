# Stops and disables the instances, and gives the packaged init script back. For a node that is taken out of service:
# nothing here asks whether the other nodes can spare it.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}

{%- for name, instance in rethinkdb.instances.items() if rethinkdb.native_unit %}

rethinkdb-{{ name }}-stopped:
  service.dead:
    - name: {{ instance.service | yaml_dquote }}
    - enable: false
{%- endfor %}
{%- if rethinkdb.native_unit %}

rethinkdb-packaged-again:
  service.unmasked:
    - name: rethinkdb
{%- else %}

rethinkdb-stopped:
  service.dead:
    - name: rethinkdb
    - enable: false
{%- endif %}
