"""Builds ext/ into scrubber._native; in a working tree the bench's load tools as well.

SCRUBBER_BUILD: release (default), debug (C assertions on), asan (ASan + UBSan), fuzz (those two and libFuzzer's
coverage; needs clang as CC, CXX and LDSHARED).
"""
import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAVOURS = {
    "release": (["-O2", "-g1", "-DNDEBUG"], []),
    "debug": (["-O1", "-g", "-UNDEBUG"], []),
    "asan": (
        ["-O1", "-g", "-UNDEBUG", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
        ["-fsanitize=address,undefined"],
    ),
    "fuzz": (
        ["-O1", "-g", "-UNDEBUG", "-fsanitize=fuzzer-no-link,address,undefined",
         "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"],
        ["-fsanitize=fuzzer-no-link,address,undefined"],
    ),
}
flavour = os.environ.get("SCRUBBER_BUILD", "release")
compile_args, link_args = FLAVOURS[flavour]

sources = sorted(str(p) for kind in ("*.p[yx][xd]", "*.h", "*.cc") for p in Path("ext").glob(kind))
# Cythonised as `_native` so that ext/_native.pxd is found beside it; it belongs into the package.
(native,) = cythonize(
    [
        Extension(
            "_native",
            ["ext/_native.pyx"],
            depends=sources,
            extra_compile_args=[*compile_args, "-std=gnu11", "-mcx16", "-fno-strict-aliasing", "-Wno-unused-function",
                                "-Wno-sign-compare"],
            extra_link_args=link_args,
            include_dirs=["ext"],
            libraries=["re2", "ssl", "crypto", "nghttp2", "stdc++"],
        )
    ],
    build_dir=f"build/cython-{flavour}",
    include_path=["ext"],
    annotate=False,
)
native.name = "scrubber._native"


class BuildExt(build_ext):
    """Compiles the core's C++ (ext/*.cc) with flags of its own and links it in: what is C in the core stays C."""

    def build_extension(self, ext: Extension) -> None:
        if ext is native:
            flags = [*compile_args, "-std=c++17", "-fvisibility=hidden"]
            parts = sorted(str(p) for p in Path("ext").glob("*.cc"))
            scratch = str(Path(self.build_temp) / flavour)
            ext.extra_objects = self.compiler.compile(parts, output_dir=scratch, extra_postargs=flags)
        super().build_extension(ext)


extensions = [native]
if {"build_ext", "editable_wheel"} & set(sys.argv):     # never into a wheel
    bench_args = ["-O2", "-std=gnu11"]
    extensions += cythonize(
        [
            Extension("bench.macro.native", ["bench/macro/native.pyx"], extra_compile_args=bench_args),
            Extension("bench.macro.native_tls", ["bench/macro/native_tls.pyx"], extra_compile_args=bench_args,
                      libraries=["ssl", "crypto"]),
        ],
        build_dir="build/cython-bench",
    )

setup(ext_modules=extensions, cmdclass={"build_ext": BuildExt})
