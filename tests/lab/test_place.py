"""Where a checkout may lie: `make` refuses in one sentence what cannot work, and nothing else."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab import guard, place

CHECKOUT = Path(__file__).resolve().parents[2]
ODD = ("a blank", "ü", "日本", "it's", 'a "quote"', "5$", "semi ;colon #", "100%(x)s", "x" * 200)


@pytest.mark.parametrize(
    "name", [*ODD, "selfheal", "~^=,@!|<>", "back\\slash", "(Engine(selfheal)"]
)
def test_what_works_is_not_refused(name):
    assert place.wrong_checkout(f"/home/{name}/saltext_selfheal") is None


@pytest.mark.parametrize(
    "name, why",
    [
        ("a:b", "a colon"),
        ("$HOME", "takes '$HOME' in a path for a variable"),
        ("a$_b", "for a variable"),
        ("clone [2]", "Salt takes '[' in a path for a pattern"),
        ("a*", "for a pattern"),
        ("a?", "for a pattern"),
        ("{a}", "for a variable"),
        ("a\nb", "control character"),
        ("a\x1bb", "control character"),
        (os.fsdecode(b"\xff"), "no UTF-8"),
        ("/ü" * 2000, "6012 bytes"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(name, why):
    told = place.wrong_checkout(f"/home/{name}/clone")
    assert why in told
    assert "\n" not in told
    assert told.isascii() or "…" in told


@pytest.mark.parametrize(
    "path, why",
    [
        ("/" + "x" * 38, "39 characters"),
        ("/tmp/a b", "plainer"),
        ("/tmp/ü", "plainer"),
        ("/tmp/a;b", "plainer"),
    ],
)
def test_a_folder_for_temporary_files_that_no_site_can_use_is_refused(path, why):
    told = place.wrong_temporary(path)
    assert why in told
    assert "TMPDIR" in told


def test_a_folder_for_temporary_files_that_is_just_short_enough():
    path = "/" + "x" * (place.MOST_TEMPORARY - 1)
    assert place.wrong_temporary(path) is None
    with_root = len(path) + len("/sh-") + len(next(tempfile._get_candidate_names()))
    assert with_root == guard.LONGEST_ROOT


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("name, makes", [("a:b", "test"), ("a:b", "docs"), ("long", "demo")])
def test_make_says_it_before_it_makes_anything(tmp_path, name, makes):
    clone = tmp_path / name
    (clone / "tests" / "lab").mkdir(parents=True)
    shutil.copy(CHECKOUT / "Makefile", clone)
    shutil.copy(place.__file__, clone / "tests" / "lab")
    far = tmp_path / ("x" * 40)
    far.mkdir()
    done = subprocess.run(
        ["make", makes, f"PYTHON={sys.executable}"],
        cwd=clone,
        env={**os.environ, "TMPDIR": str(far)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    first, *_ = done.stderr.splitlines()
    assert first.startswith("make: ")
    assert ("TMPDIR" if name == "long" else "a colon") in first
    assert "Traceback" not in done.stderr
    assert not (clone / ".venv").exists()
