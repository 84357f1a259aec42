"""Hash lists: what is read of them, what is named as wrong, and what is found."""

import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.scan import hash_lists
from stanch.worker.scan.hash_lists import MAX_PROBLEMS, HashLists, Hit

MD5 = hashlib.md5(b"evil").hexdigest()
SHA1 = hashlib.sha1(b"evil").hexdigest()
SHA256 = hashlib.sha256(b"evil").hexdigest()
OTHER = hashlib.sha256(b"worse").hexdigest()
EVERY = {"md5": MD5, "sha1": SHA1, "sha256": SHA256}


def read(data: bytes | str) -> HashLists:
    lists = HashLists()
    lists.add("list", data if isinstance(data, bytes) else data.encode())
    return lists


@pytest.mark.parametrize(("kind", "digest"), EVERY.items())
def test_each_kind_is_found_by_its_length(kind: str, digest: str) -> None:
    """MD5, SHA-1 and SHA-256 are told apart by their length, and only their kind is asked for."""
    lists = read(f"{digest}\n")
    assert lists.kinds == {kind}
    assert lists.find(EVERY) == (Hit(kind, digest, "list", ""),)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"{SHA256}", ""),
        (f"{SHA256.upper()}", ""),
        (f"  {SHA256}  ", ""),
        (f"{SHA256} Trojan.Linux", "Trojan.Linux"),
        (f"{SHA256}  bin/evil", "bin/evil"),
        (f"{SHA256} *bin/evil", "bin/evil"),
        (f"\\{SHA256}  a\\nb", "a\\nb"),
        (f"{SHA256},Trojan", "Trojan"),
        (f"{SHA256};Trojan", "Trojan"),
        (f'"{SHA256}","Trojan, big"', "Trojan"),
        (f"{SHA256}\tTrojan one", "Trojan one"),
        (f"{SHA256}:68:Eicar-Test", "Eicar-Test"),
        (f"{SHA256}:*:Eicar-Test:73", "Eicar-Test"),
        (f"{SHA256} http://evil.example/a", "http://evil.example/a"),
        (f"{SHA256} # found on web-01", ""),
        (f"{SHA256} Trojan # found on web-01", "Trojan"),
        (f"SHA256 (bin/evil) = {SHA256}", "bin/evil"),
        (f"bin/evil,{SHA256}", ""),
        (f'"2026-01-01 10:00:00","{SHA256}","{"b" * 32}","{"c" * 40}","reporter"', "reporter"),
        (f"{SHA256} T\N{LATIN SMALL LETTER U WITH DIAERESIS}r", "T\N{LATIN SMALL LETTER U WITH DIAERESIS}r"),
    ],
)
def test_every_usual_line_is_read(line: str, name: str) -> None:
    """Plain, `sha256sum`, BSD, CSV and ClamAV lines give the hash and what they call it."""
    lists = HashLists()
    _count, problems = lists.add("list", line.encode())
    assert not problems
    assert lists.find(EVERY) == (Hit("sha256", SHA256, "list", name),)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_and_line_end_is_read(encoding: str, end: str) -> None:
    """A byte order mark, UTF-16 and the line ends of any system make no difference."""
    data = end.join([f"{SHA256} one", "# comment", "", f"{OTHER} two"]).encode(encoding)
    lists = HashLists()
    assert lists.add("list", data) == (2, ())
    assert lists.find({"sha256": OTHER})[0].name == "two"


def test_a_csv_header_names_the_column() -> None:
    """A header is no wrong line, and says which column names the malware."""
    data = f"first_seen,sha256,md5,reporter,signature\n2026,{SHA256},{MD5},bob,Mirai\n"
    lists = HashLists()
    assert lists.add("list", data.encode()) == (2, ())
    assert lists.kinds == {"md5", "sha256"}
    assert lists.find({"md5": MD5})[0].name == "Mirai"


def test_one_hit_for_each_list() -> None:
    """A list that has several hashes of one file is told once, by the strongest of them."""
    lists = HashLists()
    lists.add("a", f"{MD5}\n{SHA1}\n{SHA256} big\n".encode())
    lists.add("b", MD5.encode())
    assert lists.find(EVERY) == (Hit("sha256", SHA256, "a", "big"), Hit("md5", MD5, "b", ""))


def test_a_hash_counts_once_in_a_list() -> None:
    """Repeated lines, in upper and lower case, are one hash."""
    lists = HashLists()
    count, problems = lists.add("list", f"{SHA256}\n{SHA256.upper()} x\n{SHA256}".encode())
    assert (count, problems) == (1, ())
    assert len(lists.find(EVERY)) == len(lists) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evil.exe", "no MD5, SHA-1 or SHA-256 hash: evil.exe"),
        ("a" * 63, "63 hexadecimal digits are no hash"),
        (SHA256 + "0", "65 hexadecimal digits"),
        (SHA256[:-1] + "g", "no MD5"),
        ("x" * 10_000, "more than 8192 bytes"),
        ("MD5 (x) = abcd", "no MD5"),
        (hashlib.sha256(b"").hexdigest(), "without content"),
        (hashlib.md5(b"").hexdigest(), "without content"),
        ("sha256", "no MD5"),
    ],
)
def test_wrong_lines_are_named(line: str, says: str) -> None:
    """A line without a hash is named with its number, and the others count."""
    lists = HashLists()
    count, problems = lists.add("list", f"# a\n{SHA256}\n{line}\n{OTHER}\n".encode())
    assert count == 2
    assert [one.line for one in problems] == [3]
    assert says in problems[0].text


def test_problems_are_bounded() -> None:
    """Of very many wrong lines some are named, and the others are counted."""
    _count, problems = HashLists().add("list", b"wrong\n" * (MAX_PROBLEMS + 7))
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].text.startswith("7 more lines")


def test_what_is_no_list_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After very many lines without a hash the rest is left out, and that is told; what came before counts."""
    monkeypatch.setattr(hash_lists, "MAX_WRONG", 10)
    data = f"{SHA256}\n" + "wrong\n" * (MAX_PROBLEMS + 10) + f"{OTHER}\n"
    count, problems = HashLists().add("list", data.encode())
    assert count == 1
    assert problems[-1].text == "10 more lines do not count, and the rest is not read"


def test_a_list_without_a_hash_says_so() -> None:
    """An empty list, or one of comments, is named as such."""
    assert HashLists().add("list", b"# nothing\n")[1][0].text == "there is no hash in it"


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes over the bound are left out, and the line from which on is told."""
    monkeypatch.setattr(hash_lists, "MAX_HASHES", 2)
    lists = HashLists()
    count, problems = lists.add("list", f"{SHA256}\n{OTHER}\n{MD5}\n".encode())
    assert count == 2
    assert "left out" in problems[0].text


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once there is no room for names, hashes are known by their list only."""
    monkeypatch.setattr(hash_lists, "MAX_NAMES", 16)
    lists = read(f"{SHA256} {'n' * 5000}\n{OTHER} another\n")
    assert lists.find({"sha256": SHA256})[0].name == "n" * 200
    assert lists.find({"sha256": OTHER}) == (Hit("sha256", OTHER, "list", ""),)


@given(st.dictionaries(st.sampled_from([16, 20, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n)), st.none()))
def test_what_is_in_is_found_and_nothing_else(digests: dict[bytes, None]) -> None:
    """Every hash of a list is found again, and one that differs in the last bit is not."""
    kinds = {16: "md5", 20: "sha1", 32: "sha256"}
    kept = [one for one in digests if one not in hash_lists._OF_NOTHING]
    lists = read("\n".join(one.hex() for one in kept))
    for one in kept:
        assert [hit.digest for hit in lists.find({kinds[len(one)]: one.hex()})] == [one.hex()]
        changed = one[:-1] + bytes([one[-1] ^ 1])
        assert bool(lists.find({kinds[len(one)]: changed.hex()})) == (changed in digests)


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    """Whatever a list contains, it is read to its end, and what it says is bounded."""
    lists = HashLists()
    count, problems = lists.add("list", data)
    assert len(lists) == count
    assert all(len(one.text) < 200 for one in problems)


def test_a_hash_costs_its_bytes_and_a_few_more() -> None:
    """Twenty thousand hashes take less than 40 bytes each: a million of them fit into 100 MB."""
    lists = read("\n".join(hashlib.sha256(b"%d" % n).hexdigest() for n in range(20_000)))
    assert lists.find({"sha256": hashlib.sha256(b"7").hexdigest()})
    bytes_of = sum(len(piece) for piece in lists._pieces["sha256"]) + len(lists._names)
    assert bytes_of < 40 * 20_000


def test_threads_may_ask_first() -> None:
    """Threads that ask at the same time, the first time, all get the answer."""
    lists = read("\n".join(hashlib.sha256(b"%d" % n).hexdigest() for n in range(2000)))
    answers: list[int] = []
    digest = {"sha256": hashlib.sha256(b"1999").hexdigest()}
    threads = [threading.Thread(target=lambda: answers.append(len(lists.find(digest)))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert answers == [1] * 8
