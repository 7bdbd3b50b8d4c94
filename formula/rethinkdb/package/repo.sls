# RethinkDB's own repository. `repo: false` leaves it out, for a mirror that other states care for.

{%- from 'rethinkdb/map.jinja' import rethinkdb with context %}
{%- set repo = rethinkdb.repo %}
{%- if not repo.managed %}
{}
{%- elif grains.os_family == 'Debian' %}

# apt itself reads an ASCII key from a file called .asc: neither apt-key nor gpg is needed.
rethinkdb-repo-key:
  file.managed:
    - name: {{ repo.key_path | yaml_dquote }}
    - source: {{ repo.key_url | yaml_dquote }}
    {%- if repo.key_hash is not none %}
    - source_hash: {{ repo.key_hash | yaml_dquote }}
    {%- else %}
    # Without a hash the key is fetched once. So a download server that is down fails no highstate.
    - skip_verify: true
    - replace: false
    {%- endif %}
    - user: root
    - group: root
    - mode: '0644'
    - makedirs: true

rethinkdb-repo:
  pkgrepo.managed:
    - humanname: RethinkDB
    - name: {{ ('deb [signed-by=' ~ repo.key_path ~ '] ' ~ repo.url ~ ' ' ~ repo.distribution ~ ' main') | yaml_dquote }}
    - file: {{ repo.file | yaml_dquote }}
    - aptkey: false
    - require:
      - file: rethinkdb-repo-key
{%- else %}

rethinkdb-repo:
  pkgrepo.managed:
    - name: rethinkdb
    - humanname: RethinkDB
    - baseurl: {{ repo.url | yaml_dquote }}
    - gpgkey: {{ repo.key_url | yaml_dquote }}
    - gpgcheck: 1
    - enabled: 1
{%- endif %}
