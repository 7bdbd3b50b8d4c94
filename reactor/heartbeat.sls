#!jinja|json
{# selfheal/engine/heartbeat -> nothing. The first heartbeat after a start of the master lets the reactor load what the
    first order will need, so that this order is carried out as fast as later ones. #}
{%- do salt['selfheal.warm']() -%}
{}
