"""Listing actions without importing them."""

import ast
import subprocess
import sys

from stanch.actions import load
from stanch.cli.outline import outlines


def test_the_outline_agrees_with_the_registry():
    """What is listed without importing is what there is."""
    assert outlines() == {one.command: one.summary for one in load().values()}


def test_listing_imports_nothing_heavy():
    """`stanch --help` stays quick: pydantic, Rich and the HTTP library are not loaded for it."""
    program = (
        "import sys; from stanch.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(ended.stderr))
    assert not loaded & {"pydantic", "rich", "httpx2", "fastapi", "sqlalchemy", "aiohttp", "cryptography"}


def test_only_declarations_are_read(tmp_path):
    """Helpers, other decorators and odd files of the folder are passed over; nothing is run."""
    (tmp_path / "one.py").write_text(
        "raise SystemExit\n@action('do_it', version=1)\nasync def f(h, p):\n    'Do it.'\n"
        "@other('no')\nasync def g(): ...\n@action(name)\nasync def h(): ...\ndef i(): ...\n"
    )
    (tmp_path / "readme.txt").write_text("@action('text')")
    assert outlines(tmp_path) == {"do-it": "Do it."}
