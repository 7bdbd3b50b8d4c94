#!jinja|json
{# selfheal/remediate/force_restart -> selfheal.force_restart on the minions that the healer's ledger names for this JID.
    Any minion can forge the event, so its JID is all that is taken from it. Who asks claims the firing: a second
    event with this JID, and one without a live attempt of this action, renders to nothing. #}
{%- set attempt = salt['selfheal.attempt'](data['jid'], 'force_restart') -%}
{%- if attempt -%}
{"selfheal_force_restart": {"local.selfheal.force_restart": [
  {"tgt": {{ attempt.minions | tojson }}},
  {"tgt_type": "list"},
  {"jid": {{ attempt.jid | tojson }}},
  {"arg": {{ attempt.args | tojson }}}
]}}
{%- else -%}
{}
{%- endif -%}
