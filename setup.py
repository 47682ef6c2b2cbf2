"""Builds fastssl._C with CMake. Everything else about the package is in pyproject.toml.

Environment: FASTSSL_CUDA (AUTO, ON, OFF), FASTSSL_CUDA_ARCHS ("80;90"), FASTSSL_SANITIZE (ON, OFF), JPEG_ROOT, CMAKE_ARGS.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Runs CMake in a folder that is kept, so that only what changed is compiled again."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        tag = f"{sys.implementation.cache_tag}{'-sanitize' if os.environ.get('FASTSSL_SANITIZE') == 'ON' else ''}"
        build = ROOT / "build" / f"cmake-{tag}"
        build.mkdir(parents=True, exist_ok=True)
        options = {"Python_EXECUTABLE": sys.executable, "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(target.parent)}
        # Said anew each time: pip's isolated builds have their own ninja, in a folder that is gone afterwards.
        options["CMAKE_MAKE_PROGRAM"] = shutil.which("ninja") or "ninja"
        # Said anew, too: CMake remembers, and an option that is no longer given must be forgotten.
        for name, default in (("FASTSSL_CUDA", "AUTO"), ("FASTSSL_CUDA_ARCHS", "default"), ("FASTSSL_SANITIZE", "OFF")):
            options[name] = os.environ.get(name, default)
        if "JPEG_ROOT" in os.environ:
            options["JPEG_ROOT"] = os.environ["JPEG_ROOT"]
        command = ["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"]
        command += [f"-D{name}={value}" for name, value in options.items()]
        subprocess.run(command + shlex.split(os.environ.get("CMAKE_ARGS", "")), check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", ext.name.split(".")[-1]], check=True)


setup(ext_modules=[Extension("fastssl._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
