"""The command, and what is imported."""

import os
import subprocess
import sys

from tests.unit.app.world import SECRET


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "saltext_selfheal.app", *arguments],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_commands_exit_codes(well, api):
    hosts = f"--hosts={well.host}:{well.port}"
    good = run(hosts, SELFHEAL_DB_PASSWORD="secret")
    assert (good.returncode, good.stderr) == (0, "")
    assert "attempt 1" in good.stdout and "connected" in good.stdout
    wrong = run(hosts, SELFHEAL_DB_PASSWORD="other")
    assert wrong.returncode == 3
    assert "Wrong password" in wrong.stderr
    foreign = run(hosts, "--tls")
    assert foreign.returncode == 3
    assert "TLS failed" in foreign.stderr
    assert run("--hosts=").returncode == 2
    assert run().returncode == 2
    assert run(hosts, "--salt-api=http://m").returncode == 2
    nosuch = run(
        hosts,
        "--cluster=c",
        "--webhook=https://m",
        "--api-ca=/nosuch",
        SELFHEAL_WEBHOOK_SECRET=SECRET,
    )
    assert nosuch.returncode == 2
    assert "verify: found '/nosuch'" in nosuch.stderr
    well.set_fault("refuse")
    late = run(
        hosts, "--timeout=0.3", "--deadline=1", "--cluster=runbook", f"--salt-api={api.url}",
        "--api-user=u", "--highstate-after=0", SELFHEAL_API_PASSWORD="p",
    )  # fmt: skip
    assert late.returncode == 1
    assert "help  highstate of runbook: accepted (runbook-1)" in late.stdout


def test_no_salt_is_imported():
    code = (
        "import sys, saltext_selfheal.app; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'salt', 'pydantic'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
