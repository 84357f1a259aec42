"""Is everything told that udev, modprobe and the kernel itself start?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.autorun_kernel import KernelReader, init_of, udev_commands
from stanch.core.autoruns import Place
from tests.agent.host.autorun_root import new_root


@pytest.fixture
def root(tmp_path):
    """A machine."""
    return new_root(tmp_path)


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ('ACTION=="add", RUN+="/opt/x %k"', ["/opt/x %k"]),
        ('RUN{program}+="/opt/x", RUN+="/opt/y"', ["/opt/x", "/opt/y"]),
        ('PROGRAM=="/opt/x", RESULT=="1"', ["/opt/x"]),
        ('IMPORT{program}="/opt/x"', ["/opt/x"]),
        ('RUN{builtin}+="kmod load x"', []),
        ('IMPORT{builtin}="usb_id"', []),
        ('RUN+="kmod load x"', []),
        ('ENV{RUNNING}="/opt/x"', []),
        ("", []),
    ],
)
def test_programs_of_a_rule_are_found(text, commands):
    """What udev does itself is no program."""
    assert udev_commands(text) == commands


@given(st.text(max_size=300))
def test_any_text_is_a_rule(text):
    """Perhaps one that starts nothing."""
    udev_commands(text)


def test_rules_that_start_something_are_told(root):
    """A rule file of the same name in /etc stands in front; a program without a folder is in udev's."""
    root.write("/etc/udev/rules.d/a.rules", 'ACTION=="add", \\\n  RUN+="/opt/x"\nKERNEL=="y"\n')
    root.write("/usr/lib/udev/rules.d/a.rules", 'RUN+="/opt/old"\n')
    root.program("/usr/lib/udev/tool")
    root.write("/usr/lib/udev/rules.d/b.rules", 'PROGRAM="tool %k"\n')
    found = [
        (one.path, one.line, one.program or one.starts, one.enabled) for one in root.items(KernelReader(), Place.UDEV)
    ]
    assert found == [
        ("/etc/udev/rules.d/a.rules", 1, "/opt/x", True),
        ("/usr/lib/udev/rules.d/a.rules", 1, "/opt/old", False),
        ("/usr/lib/udev/rules.d/b.rules", 1, "/usr/lib/udev/tool", True),
    ]


def test_modules_are_told_once(root):
    """Debian's link to /etc/modules is the same list; commands of modprobe count, switching off does not."""
    root.write("/etc/modules", "# c\nloop\n")
    root.link("/etc/modules-load.d/modules.conf", "../modules")
    root.write("/usr/lib/modules-load.d/x.conf", "evil\n; c\n")
    root.write("/etc/modprobe.d/y.conf", "install usb-storage /opt/x; /sbin/modprobe -i usb-storage\n")
    root.write("/etc/modprobe.d/z.conf", "install floppy /bin/true\nblacklist pcspkr\noptions a b=c\n")
    found = [(one.path, one.name, one.starts) for one in root.items(KernelReader(), Place.MODULES)]
    assert found == [
        ("/etc/modules", "loop", "-"),
        ("/usr/lib/modules-load.d/x.conf", "evil", "-"),
        ("/etc/modprobe.d/y.conf", "install usb-storage", "/opt/x; /sbin/modprobe -i usb-storage"),
    ]


def test_command_lines_are_told_with_the_first_process(root):
    """The running one, and those that the loaders have for the next boot."""
    root.write("/proc/cmdline", "root=/dev/a quiet\n")
    root.write(
        "/etc/default/grub", '# c\nGRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX="init=/bin/bash"\nGRUB_CMDLINE_LINUX_DEFAULT=""\n'
    )
    root.write("/boot/grub/grub.cfg", "menuentry x {\n  linux /vmlinuz root=/dev/a ro\n  initrd /x\n}\n")
    root.write("/boot/loader/entries/a.conf", "title A\nlinux /vmlinuz\noptions root=/dev/a init=/opt/x\n")
    found = [
        (one.path, one.name, one.command, one.program, one.notes) for one in root.items(KernelReader(), Place.KERNEL)
    ]
    assert found == [
        ("/proc/cmdline", "running", "root=/dev/a quiet", "", ()),
        (
            *("/etc/default/grub", "GRUB_CMDLINE_LINUX", '"init=/bin/bash"', "/bin/bash"),
            ("the first process is /bin/bash, a shell",),
        ),
        (
            *("/boot/loader/entries/a.conf", "a.conf", "root=/dev/a init=/opt/x", "/opt/x"),
            ("the first process is /opt/x",),
        ),
        ("/boot/grub/grub.cfg", "grub.cfg", "root=/dev/a ro", "", ()),
    ]


def test_the_last_init_counts():
    """As the kernel has it."""
    assert init_of("init=/a x init=/b") == "/b"
    assert init_of("noinit=/a systemd.unit=x") == ""
