"""The benchmarks still run: small, and without a word about time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "options", "figure"),
    [
        ("quarantine", ["--size", "20", "--times", "2"], "in_median_s"),
        ("dispatch", ["--agents", "20", "--rounds", "1"], "order_to_all_committed_s"),
        ("process_table", ["--processes", "5", "--rounds", "2"], "table_with_hashes_median_ms"),
        ("roundtrip", ["--orders", "5"], "roundtrip_median_ms"),
        (
            "transfer",
            [
                "--mib",
                "24",
                "--sparse-mib",
                "64",
                "--data-mib",
                "10",
                "--line-mib",
                "16",
                "--cut-mib",
                "24",
                "--cuts",
                "3",
            ],
            "evidence_mib_per_s",
        ),
        pytest.param(
            "processes",
            ["--times", "1", "--processes", "60", "--table-processes", "20", "--table-rounds", "1"],
            "dead_and_verified_median_ms",
            marks=pytest.mark.root,
        ),
        pytest.param(
            "isolation",
            ["--times", "4", "--exclusions", "50", "--flushes", "2", "--fleet", "5"],
            "order_to_verified_median_ms",
            marks=pytest.mark.root,
        ),
    ],
)
def test_it_runs_and_reports(name, options, figure):
    """A small run of the real thing ends well, and its last line is the result."""
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    result = json.loads(ended.stdout.strip().splitlines()[-1])
    assert result["name"] == name
    assert result["figures"][figure] > 0
    assert all({"what", "value", "bar", "held"} <= bar.keys() for bar in result["bars"])
