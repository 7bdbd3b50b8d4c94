"""
Whether this project can work where it lies: `make` asks before it makes anything.

Any letters will do, blanks and quotes too, except for what is refused here. Nothing but the
standard library, and nothing newer than Python 3.10: there is no environment yet.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

#: Bytes of a path. Linux allows 4095, and files in an environment lie some 200 below the checkout.
MOST_BYTES = 3000
#: Characters that the folder for temporary files may have: a site's folder `/sh-xxxxxxxx` below it has 50 with it,
#: and a unix socket's path ends at 107 (see guard.py).
MOST_TEMPORARY = 38
#: distutils replaces these in paths (setuptools, `subst_vars`), and fails where it knows none of that name.
VARIABLE = re.compile(r"[{}]|\$[A-Za-z_]\w*", re.ASCII)
#: Salt looks for the folders of `file_roots` and for reactor files by glob.
PATTERN = re.compile(r"[][*?]")
#: What the parts of a site are known to take in a path of theirs.
PLAIN = re.compile(r"[A-Za-z0-9/._+@=-]+")


def wrong_checkout(path):
    """Why no environment can be made in a checkout at this path, in a sentence; None if one can."""
    told = f"this checkout cannot be used where it lies, in {_shown(path)}: "
    if ":" in path:
        return f"{told}a colon separates the folders of PATH, so Python makes no environment there; move it"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return f"{told}there is a control character in the path; move it"
    if found := VARIABLE.search(path):
        return f"{told}setuptools takes {found[0]!r} in a path for a variable; move it"
    if found := PATTERN.search(path):
        return f"{told}Salt takes {found[0]!r} in a path for a pattern; move it"
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        return f"{told}the path is no UTF-8, which pip needs; move it"
    if length > MOST_BYTES:
        return f"{told}the path has {length} bytes, and {MOST_BYTES} leave room for files below it; move it"
    return None


def wrong_temporary(path):
    """Why no site can have its folder below this one, in a sentence; None if one can."""
    told = f"the folder for temporary files, {_shown(path)}, "
    if len(os.fsencode(path)) > MOST_TEMPORARY:
        return (
            f"{told}has a path of {len(path)} characters, and {MOST_TEMPORARY} leave room for unix sockets below it; "
            "set TMPDIR to a shorter one, such as /tmp"
        )
    if not PLAIN.fullmatch(path):
        return f"{told}may have letters of ASCII, digits and /._+@=- in its path; set TMPDIR to a plainer one, such as /tmp"
    return None


def _shown(path):
    return ascii(path) if len(path) <= 200 else f"{path[:200]!a}…"


def main(goals):
    """Say in one line what is wrong, for these goals of `make`; the exit code."""
    wrong = wrong_checkout(str(Path(__file__).resolve().parents[2]))
    if wrong is None and {"test", "demo", "bench"} & set(goals):
        wrong = wrong_temporary(tempfile.gettempdir())
    if wrong is not None:
        print(f"make: {wrong}", file=sys.stderr)
    return int(wrong is not None)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
