#!/usr/bin/env python3
"""Proves that balrog-proto is pure: built for ``wasm32-unknown-unknown``, it asks its host for nothing.

A module that links every machine (``tests/wasm_gate``) must import nothing, and must not reach those functions of the
standard library that would need a clock, randomness, a thread, a file or a socket; there, they exist and only fail.

Where rustup has the target (``rustup target add wasm32-unknown-unknown``), that is used. Elsewhere, on Debian and its
like, the compiler packages that come with the library's source are fetched by ``apt-get download`` and unpacked below
``target/``, and the library is built from it. Nothing is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "tests" / "wasm_gate"
TARGET = "wasm32-unknown-unknown"
BUILD = ROOT / "target" / "wasm-gate"
IMPORT_SECTION, EXPORT_SECTION = 2, 7
# As they are in mangled names: a length, then the name.
FORBIDDEN = {
    "a clock": rb"(?:7Instant|10SystemTime)3now",
    "randomness": rb"19hashmap_random_keys|11RandomState3new|9getrandom",
    "a thread": rb"3std6thread\w*?(?:5spawn|5sleep|4park)",
    "a file": rb"3std2fs",
    "a socket": rb"3std3net\w*?(?:7connect|4bind)",
}


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command, env=os.environ | (env or {}), cwd=cwd, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: failed")
    return done.stdout.strip()


def has_target() -> bool:
    return Path(run("rustc", "--print", "target-libdir", "--target", TARGET)).is_dir()


def unpacked_compiler() -> Path:
    """Debian's compiler with the source of its library, unpacked; its root."""
    root = BUILD / "toolchain"
    if (root / "complete").exists():
        return root
    debs, lists = BUILD / "debs", BUILD / "lists"
    for folder in (debs, lists / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    # Lists of our own: the machine's may be as old as the machine, and its compiler too old for us.
    own = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={BUILD / 'cache'}", "-o", "APT::Sandbox::User=root")
    run("apt-get", "-q", *own, "update")
    tree = run("apt-cache", *own, "depends", "--recurse", "--important", "rustc-web")
    wanted = re.compile(r"^(rustc-web|libstd-rust-web-dev|libstd-rust-web-[\d.]+|libllvm\d+)$")
    packages = sorted({line for line in tree.splitlines() if wanted.match(line)} | {"rust-web-src"})
    run("apt-get", "-q", *own, "download", *packages, cwd=debs)
    for deb in debs.glob("*.deb"):
        run("dpkg-deb", "-x", deb, root)
        deb.unlink()
    (root / "complete").touch()
    return root


def build() -> Path:
    command = ["cargo", "build", "--quiet", "--manifest-path", CRATE / "Cargo.toml", "--target", TARGET]
    env = {"CARGO_TARGET_DIR": str(BUILD / "build"), "RUSTFLAGS": "-C symbol-mangling-version=v0"}
    if not has_target():
        root = unpacked_compiler()
        libraries = [root / "usr" / "lib" / f"{os.uname().machine}-linux-gnu", root / "usr" / "lib"]
        linker = Path(run("rustc", "--print", "target-libdir")).parent / "bin" / "rust-lld"
        env |= {
            "RUSTC": str(root / "usr" / "bin" / "rustc"),
            "RUSTC_BOOTSTRAP": "1",
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER": str(linker),
        }
        command += ["-Zbuild-std=core,alloc,std,panic_abort"]
    run(*command, env=env)
    return BUILD / "build" / TARGET / "debug" / "balrog_wasm_gate.wasm"


def sections(module: bytes) -> dict[int, bytes]:
    """The sections of a module by number; those with a name of their own have 0."""
    assert module.startswith(b"\0asm"), "this is no WebAssembly module"
    found: dict[int, bytes] = {}
    at = 8
    while at < len(module):
        number = module[at]
        at, size, shift = at + 1, 0, 0
        while True:
            byte = module[at]
            at, size, shift = at + 1, size | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                break
        found[number] = found.get(number, b"") + module[at : at + size]
        at += size
    return found


def main() -> None:
    module = build().read_bytes()
    found = sections(module)
    for name in (b"http_server", b"http_client", b"websocket", b"postgres"):
        assert name in found[EXPORT_SECTION], f"{name} is not in the module"
    if found.get(IMPORT_SECTION, b"\0")[0]:
        sys.exit(f"balrog-proto wants something of its host: {found[IMPORT_SECTION]!r}")
    names = found[0]
    assert b"balrog_proto" in names, "the module has no names to look at"
    for what, pattern in FORBIDDEN.items():
        if reached := re.search(rb"\w*(?:%s)\w*" % pattern, names):
            sys.exit(f"balrog-proto asks for {what}: {reached[0].decode()}")
    print(f"balrog-proto is pure: {len(module):,} bytes of WebAssembly import nothing")


if __name__ == "__main__":
    main()
