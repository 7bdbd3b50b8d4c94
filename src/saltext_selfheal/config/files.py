"""The files that the settings name, as they are now. The rest of this room reads no file."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from ..driver.dialling import Unusable, tls_context
from .loading import ROOT
from .mistakes import ConfigError, Problem, path_of, shown
from .settings import ClusterSettings


def trusted(clusters: Mapping[str, ClusterSettings]) -> dict[str, ssl.SSLContext]:
    """The context that checks certificates, for each cluster that talks TLS.

    Raises ConfigError, with one problem for each file of CA certificates that cannot be used.
    """
    made = {}
    problems = []
    for name, cluster in clusters.items():
        if cluster.tls is None:
            continue
        try:
            made[name] = tls_context(cluster.tls.ca_certs)
        except Unusable as exc:
            path = path_of(ROOT, "clusters", name, "tls", "ca_certs")
            problems.append(Problem(path, f"{shown(cluster.tls.ca_certs)} ({exc})", exc.allowed))
    if problems:
        raise ConfigError(problems)
    return made
