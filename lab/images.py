"""The images that demo, tests and benchmarks use, built from Debian packages: nothing is pulled.

`python -m lab.images [NAME...]` builds them and prints the archives' paths. They are kept in .cache/images
under a name that changes with what they are made of.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import platform
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import debian_packages
from lab.layout import LabError
from lab.oci_archive import ImageSettings, RootFilesystem, archive

_PYTHON = Path("/usr/bin/python3.11")
_STANDARD_LIBRARY = Path("/usr/lib/python3.11")
_PROGRAM_TIMEOUT_SECONDS = 60
_WEB_SERVER = Path(__file__).parent / "demo/web_server.py"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


# What web_server.py imports, and what the library imports only when it is needed.
_SHOP_MODULES = [
    "encodings.idna",
    "http.client",
    "http.server",
    "json",
    "signal",
    "threading",
    "typing",
    "urllib.request",
    "zlib",
]


@dataclass(frozen=True)
class ImageRecipe:
    """How an image is made; `root` is called only when it is not in the cache."""

    settings: ImageSettings
    root: Callable[[], RootFilesystem]


def base_root() -> RootFilesystem:
    """Busybox, and the files that programs expect to exist."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    if not busybox.exists():
        raise LabError("busybox is missing: apt-get install busybox-static")
    root = RootFilesystem()
    debian_packages.add_program(root, busybox, "usr/bin/busybox")
    listing = subprocess.run(
        [str(busybox), "--list"], capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_SECONDS, check=True
    )
    for applet in listing.stdout.split():
        if applet != "busybox":
            root.links[f"usr/bin/{applet}"] = "busybox"
    root.links |= {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib"}
    root.folders |= {
        "usr/lib": 0o755,
        "tmp": 0o1777,
        "var/tmp": 0o1777,
        "run": 0o755,
        "proc": 0o755,
        "sys": 0o755,
        "dev": 0o755,
        "etc": 0o755,
        "root": 0o700,
    }
    root.add_text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nservice:x:999:999::/:/bin/sh\n",
    )
    root.add_text("etc/group", "root:x:0:\nnogroup:x:65534:\nservice:x:999:\n")
    root.add_text("etc/nsswitch.conf", "hosts: files dns\n")
    return root


def _static_web_root() -> RootFilesystem:
    root = base_root()
    root.add_text("www/index.html", "hello from fairway\n")
    root.add_text("www/cgi-bin/name", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nhostname\n", 0o755)
    return root


def _redis_root() -> RootFilesystem:
    tree = debian_packages.unpacked("redis", ["redis-server", "redis-tools"])
    root = base_root()
    for program in ("redis-server", "redis-cli"):
        debian_packages.add_program(root, tree / f"usr/bin/{program}", f"usr/bin/{program}", tree)
    return root


def _shop_root() -> RootFilesystem:
    root = base_root()
    _add_python(root, _SHOP_MODULES)
    root.add_text("srv/web_server.py", _WEB_SERVER.read_text())
    return root


def _add_python(root: RootFilesystem, modules: list[str]) -> None:
    """Debian's Python, with those parts of its library that `modules` load, compiled."""
    if not _PYTHON.exists():
        raise LabError(f"{_PYTHON} is missing: apt-get install python3.11")
    debian_packages.add_program(root, _PYTHON, "usr/bin/python3.11")
    root.links["usr/bin/python3"] = "python3.11"
    with tempfile.TemporaryDirectory() as scratch:
        for source in _loaded_files(modules):
            target = str(source).lstrip("/")
            if source.suffix == ".so":
                debian_packages.add_program(root, source, target)
                continue
            root.add_file(target, source)
            compiled = Path(scratch) / "compiled.pyc"
            py_compile.compile(
                str(source),
                str(compiled),
                dfile=str(source),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            cached = importlib.util.cache_from_source(target)
            root.files[cached] = (compiled.read_bytes(), 0o644)


def _loaded_files(modules: list[str]) -> list[Path]:
    """Files of Python's library that a fresh interpreter holds after importing `modules`, and encodings."""
    program = (
        "import sys, json, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "files = {getattr(module, '__file__', None) for module in list(sys.modules.values())}\n"
        "print(json.dumps(sorted(files - {None})))"
    )
    done = subprocess.run(
        [str(_PYTHON), "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=_PROGRAM_TIMEOUT_SECONDS,
        check=True,
    )
    found = {Path(name) for name in json.loads(done.stdout)}
    found |= {_STANDARD_LIBRARY / name for name in ("site.py", "_sitebuiltins.py", "os.py", "stringprep.py")}
    found |= set((_STANDARD_LIBRARY / "encodings").glob("*.py"))
    return sorted(path for path in found if path.is_file() and path.is_relative_to(_STANDARD_LIBRARY))


def _settings(name: str, *command: str, port: str = "", environment: tuple[str, ...] = ()) -> ImageSettings:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ImageSettings(
        name,
        command,
        environment=(path, *environment),
        exposed=(port,) if port else (),
        architecture=ARCHITECTURE,
    )


RECIPES = {
    "busybox": ImageRecipe(_settings("busybox:1", "sh"), base_root),
    "static-web": ImageRecipe(
        _settings("static-web:1", "httpd", "-f", "-p", "8000", "-h", "/www", port="8000/tcp"),
        _static_web_root,
    ),
    "redis": ImageRecipe(_settings("redis:7", "redis-server", port="6379/tcp"), _redis_root),
    "shop-web": ImageRecipe(
        _settings("shop-web:1", "python3", "/srv/web_server.py", "web", port="8000/tcp"), _shop_root
    ),
    "shop-api": ImageRecipe(
        _settings("shop-api:1", "python3", "/srv/web_server.py", "api", port="8000/tcp"), _shop_root
    ),
}


def build(name: str) -> Path:
    """Path of the image's archive, made now where it is not in the cache. Two callers at once are fine."""
    if name not in RECIPES:
        raise LabError(f"there is no recipe for image {name!r}; there are: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    folder = debian_packages.CACHE / "images"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{_key(recipe)}.tar"
    if path.exists():
        return path
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            content = archive(recipe.settings, recipe.root())
            for old in folder.glob(f"{name}-????????????.tar"):
                old.unlink()
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(path)
    return path


def _key(recipe: ImageRecipe) -> str:
    """Changes when the recipe, the programs of this file or the machine's Debian release change."""
    hashed = hashlib.sha256(repr(recipe.settings).encode())
    for source in (Path(__file__), _WEB_SERVER, Path(debian_packages.__file__), Path("/etc/debian_version")):
        hashed.update(source.read_bytes() if source.exists() else b"")
    return hashed.hexdigest()[:12]


def main() -> int:
    try:
        for name in sys.argv[1:] or RECIPES:
            print(build(name), flush=True)
    except LabError as error:
        print(f"lab.images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
