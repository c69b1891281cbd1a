"""Generates the protobuf and gRPC stubs before packages are collected, so that a build from a clone is complete."""

import runpy

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStubs(build_py):
    """``build_py`` that first writes ``crossfarm/wire/v1`` from ``proto/``."""

    def run(self) -> None:
        runpy.run_path("tools/generate_stubs.py", run_name="__main__")
        super().run()


setup(cmdclass={"build_py": BuildWithStubs})
