"""Artifacts: the container, signatures of its functions, what a device can run of it, and the store."""

from crossfarm.artifact.artifact import Artifact, write_artifact
from crossfarm.artifact.select import DeviceCapabilities, select_variant
from crossfarm.artifact.signature import Binding, Signature

__all__ = ["Artifact", "Binding", "DeviceCapabilities", "Signature", "select_variant", "write_artifact"]
