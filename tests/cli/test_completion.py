"""Completion scripts are understood by the shell, and answer."""

import os
import shutil
import subprocess
import sys

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_understood(run, shell):
    """Each shell that is here parses its script; the others' at least name the program."""
    script = run("completion", shell).out
    assert "_STANCH_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def completed(*words: str) -> list[str]:
    """What bash would be offered for the last of these words."""
    environment = {
        **os.environ,
        "_STANCH_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    line = [sys.executable, "-c", "from stanch.cli.main import main; main([])"]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    return [offer.split(",", 1)[1] for offer in ended.stdout.splitlines()]


def test_commands_are_completed():
    """Names of commands and actions that begin so."""
    assert completed("stanch", "or") == ["orders", "order"]
    assert completed("stanch", "iso") == ["isolate"]


def test_what_stands_below_is_completed():
    """Subcommands and an action's own options."""
    assert completed("stanch", "order", "ca") == ["cancel"]
    assert "--duration" in completed("stanch", "isolate", "--d")
