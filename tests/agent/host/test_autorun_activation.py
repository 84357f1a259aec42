"""What is started on demand, or by another manager than systemd and cron."""

from pathlib import Path

import pytest

from stanch.agent.host.autorun_activation import activated
from stanch.agent.host.autorun_found import Programs
from stanch.agent.host.autorun_tree import Tree
from tests.agent.host.autorun_root import new_root


@pytest.mark.parametrize(
    ("path", "text", "program"),
    [
        ("/usr/share/dbus-1/system-services/x.service", "[D-BUS Service]\nName=x\nExec=/opt/x -a\n", "/opt/x"),
        ("/home/alice/.local/share/dbus-1/services/x.service", "[D-BUS Service]\nExec=/opt/x\n", "/opt/x"),
        ("/etc/polkit-1/rules.d/x.rules", "polkit.addRule()\n", None),
        ("/etc/inetd.conf", "x stream tcp nowait root /opt/x x\n", "/opt/x"),
        ("/etc/network/interfaces", "iface x\n  post-up /opt/x\n", "/opt/x"),
        ("/etc/sysctl.d/x.conf", "kernel.core_pattern = |/opt/x %p\n", "/opt/x"),
        ("/etc/logrotate.d/x", "/var/log/x {\n postrotate\n /opt/x\n}\n", None),
        ("/home/alice/.config/containers/systemd/x.container", "[Container]\nImage=x\n", None),
        ("/etc/kubernetes/manifests/x.yaml", "kind: Pod\n", None),
    ],
)
def test_what_is_started_on_demand_is_told(tmp_path: Path, path: str, text: str, program: str | None) -> None:
    """The bus, polkit, inetd, networks, core dumps, log rotation, containers: each with its program if it names one."""
    root = new_root(tmp_path)
    root.write(path, text)
    tree = Tree(root.folder)
    try:
        (one,) = activated(tree)
        program_of = Programs(tree).of(one.starts)
    finally:
        tree.close()
    assert (one.path, program_of or None) == (path, program)
