# Configuration and units go. Data stay, and so does the note that says that they were made.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}
{%- if rethinkdb.instances %}

include:
  - rethinkdb.service.clean
{%- endif %}

{%- for name, instance in rethinkdb.instances.items() %}

rethinkdb-{{ name }}-config-removed:
  file.absent:
    - names:
      - {{ instance.file | yaml_dquote }}
      {%- if rethinkdb.native_unit %}
      - {{ instance.unit_file | yaml_dquote }}
      {%- endif %}
    - require:
      - sls: rethinkdb.service.clean
{%- else %}
{}
{%- endfor %}
