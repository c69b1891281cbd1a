"""What users import. A name that goes away, or one that appears unmeant, shows here."""

from __future__ import annotations

import inspect

import pytest

import clients.sdk
import crossfarm

SDK = {
    "BenchmarkResult", "BuildProgress", "BuildResult", "Compiler", "Device", "DeviceInfo", "Explanation", "Farm",
    "Future", "Lease", "Loaded", "LoadedFunction", "Profile", "QueuePosition", "Security", "TargetInfo", "Tensor",
    "connect",
}  # fmt: skip
CROSSFARM = {
    "Artifact", "IRModule", "PrimFunc", "Schedule", "Target", "connect", "load", "parse", "structural_equal",
    "structural_hash", "te", "verify", "__version__",
}  # fmt: skip
MEMBERS = {
    "Farm": {
        "acquire", "address", "build", "capabilities", "close", "compiler", "devices", "embedded", "put", "security",
        "targets",
    },
    "Lease": {
        "acquire", "address", "alive", "failure", "fencing_token", "id", "info", "release", "session_token",
    },
    "Compiler": {"address", "build", "capabilities", "close", "fetch", "store", "targets"},
}  # fmt: skip


def test_the_sdk_exports_these_names() -> None:
    assert set(clients.sdk.__all__) == SDK
    assert all(hasattr(clients.sdk, name) for name in SDK)


def test_the_package_exports_these_names_and_every_error() -> None:
    assert set(crossfarm.__all__) == CROSSFARM | set(crossfarm.errors.all_errors())
    assert all(getattr(crossfarm, name) is not None for name in crossfarm.__all__)


@pytest.mark.parametrize("name", MEMBERS)
def test_classes_have_these_members(name: str) -> None:
    cls = getattr(clients.sdk, name)
    methods = {member for member in dir(cls) if not member.startswith("_")}
    assert methods == MEMBERS[name] & methods
    attributes = {member for member in MEMBERS[name] - methods if f"self.{member} = " in inspect.getsource(cls)}
    assert methods | attributes == MEMBERS[name]


@pytest.mark.parametrize("name", sorted(SDK))
def test_every_exported_name_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(clients.sdk, name))
    assert f"``{name}``" in (clients.sdk.__doc__ or "")
