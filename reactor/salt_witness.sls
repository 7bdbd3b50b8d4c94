#!jinja|json
{# selfheal/remediate/salt_witness -> functions of Salt's own that only read, in one job, on the minions that the healer's
    ledger names for this JID. For minions without the package. `local` takes one function, so this goes through a runner.
    Any minion can forge the event, so its JID is all that is taken from it. Who asks claims the firing: a second
    event with this JID, and one without a live attempt of this action, renders to nothing. #}
{%- set attempt = salt['selfheal.attempt'](data['jid'], 'salt_witness') -%}
{%- if attempt -%}
{"selfheal_salt_witness": {"runner.salt.execute": [{"args": {
  "tgt": {{ attempt.minions | tojson }},
  "tgt_type": "list",
  "jid": {{ attempt.jid | tojson }},
  "timeout": 1,
  "fun": ["service.status", "ps.psaux", "network.netstat", "disk.usage", "disk.inodeusage", "saltutil.running"],
  "arg": [[{{ attempt.args[0] | tojson }}], ["rethinkdb"], [], [], [], []]
}}]}}
{%- else -%}
{}
{%- endif -%}
