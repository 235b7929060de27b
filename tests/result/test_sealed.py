"""Files that are not as they were written: none is read with other numbers, each is refused by name."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pscrub import DamagedError, StudyError, StudyResult, scrub
from pscrub import records as store
from tests.result.test_result import study

OLDER = Path(__file__).parent / "older"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Two results' files, equal but for the draws."""
    folder = tmp_path_factory.mktemp("sealed")
    first, second = (scrub(study(), draws=200, seed=seed).save(folder / f"{seed}.nc").read_bytes() for seed in (0, 1))
    return first, second


def refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        StudyResult.load(path)
    assert str(path) in caught.value.faults[0]


def test_what_is_as_it_was_written_is_read(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    found = []
    for i, content in enumerate(files):
        (tmp_path / f"{i}.nc").write_bytes(content)
        found.append(StudyResult.load(tmp_path / f"{i}.nc"))
        assert content.count(store.MARK) == 1
    assert found[0]["sign"].draws != found[1]["sign"].draws


def test_every_bit_of_the_head_and_many_of_the_rest(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    content, rng = files[0], random.Random(0)
    head = content.index(store.MARK) + len(store.MARK) + store.DIGITS
    start = content.index(store.MARK) - 60
    bits = [8 * byte + bit for byte in range(start, head) for bit in range(8)]
    bits += [rng.randrange(8 * len(content)) for _ in range(600)]
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        refused(tmp_path / "flipped.nc", bytes(changed))
    assert len(bits) > 1000


def test_cut_off_and_lengthened_files(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    content, rng = files[0], random.Random(1)
    for length in [0, 1, len(content) - 1, *(rng.randrange(len(content)) for _ in range(150))]:
        refused(tmp_path / "cut.nc", content[:length])
    for more in (b"\0", b"\0" * 4096, content):
        refused(tmp_path / "longer.nc", content + more)


def test_pieces_of_one_file_in_another(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    (content, other), rng = files, random.Random(2)
    tried = 0
    while tried < 150:
        start = rng.randrange(len(content))
        end = min(start + rng.choice((8, 64, 512, 4096)), len(content), len(other))
        mixed = content[:start] + other[start:end] + content[end:]
        if mixed != content:
            refused(tmp_path / "mixed.nc", mixed)
            tried += 1


def test_files_of_other_programs(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    rng = random.Random(3)
    foreign = [
        b"words",
        b"CDF\x02",
        b"CDF\x01" + bytes(100),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        Path(__file__).read_bytes(),
    ]
    foreign += [rng.randbytes(rng.randrange(4000)) for _ in range(50)]
    for content in foreign:
        refused(tmp_path / "foreign.nc", content)


def test_a_seal_that_was_taken_off_is_missed(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    refused(tmp_path / "bare.nc", files[0].replace(store.MARK, b"SHA256:"))


def test_files_of_before_have_no_seal_and_are_read(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    content = (OLDER / "seed_0.nc").read_bytes()
    assert store.MARK not in content
    found = StudyResult.load(OLDER / "seed_0.nc")
    again = found.save(tmp_path / "again.nc")
    assert store.MARK in again.read_bytes() and StudyResult.load(again) == found


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "result.nc").write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(StudyError, match=r"cannot read '.*result.nc': Permission denied"):
        StudyResult.load(tmp_path)


def test_file_and_folder_are_on_the_disk_around_the_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(store.os, name)
        monkeypatch.setattr(store.os, name, lambda *of, real=real, name=name: (done.append(name), real(*of)))
    store.write_whole(tmp_path / "file", lambda file: file.write(b"content"))
    assert done == ["fsync", "replace", "fsync"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
