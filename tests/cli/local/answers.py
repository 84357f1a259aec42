"""Answers of an agent."""

import json


def ok(**value) -> bytes:
    return json.dumps({"ok": True, "value": value}).encode() + b"\n"
