"""Would systemd start it anew? By the files of a machine that the test makes."""

import pytest

from stanch.agent.host.container_restarts import restart_of


def write(root, path, value):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"[Service]\nExecStart=/bin/true\n{value}\n")


@pytest.mark.parametrize(("files", "unit", "found"), [
    ({}, "shop.service", ""),
    ({"usr/lib/systemd/system/shop.service": "Restart=always"}, "shop.service", "always"),
    ({"usr/lib/systemd/system/shop.service": ""}, "shop.service", ""),
    ({"run/systemd/generator/shop.service": "Restart = on-failure"}, "shop.service", "on-failure"),
    ({"usr/lib/systemd/system/shop.service": "Restart=always",
      "etc/systemd/system/shop.service": "Restart=no"}, "shop.service", "no"),
    ({"usr/lib/systemd/system/shop.service": "Restart=no",
      "etc/systemd/system/shop.service.d/10.conf": "Restart=always",
      "etc/systemd/system/shop.service.d/20.conf": "Restart=on-abort"}, "shop.service", "on-abort"),
    ({"usr/lib/systemd/system/shop.service.d/10.conf": "Restart=always",
      "etc/systemd/system/shop.service.d/10.conf": "Restart=no",
      "usr/lib/systemd/system/shop.service": ""}, "shop.service", "no"),
    ({"lib/systemd/system/systemd-nspawn@.service": "Restart=always"}, "systemd-nspawn@web.service", "always"),
    ({"lib/systemd/system/lxc@.service": "Restart=always",
      "etc/systemd/system/lxc@web.service.d/x.conf": "Restart=no"}, "lxc@web.service", "no"),
    ({"etc/systemd/system/lxc@.service.d/x.conf": "Restart=always",
      "lib/systemd/system/lxc@.service": ""}, "lxc@web.service", "always"),
    ({"usr/lib/systemd/system/shop.scope": "Restart=always"}, "shop.scope", ""),
    ({"etc/shop.service": "Restart=always"}, "../../shop.service", ""),
    ({"usr/lib/systemd/system/shop.service": "#Restart=always\nRestartSec=5"}, "shop.service", ""),
])  # fmt: skip
def test_the_last_word_counts(tmp_path, files, unit, found):
    """The unit of the first folder, its template, then drop-ins by name, those of the instance last."""
    for path, value in files.items():
        write(tmp_path, path, value)
    assert restart_of(tmp_path, unit) == found
