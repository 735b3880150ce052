"""What the contract's messages are made of, for whoever turns them into JSON."""

import base64

from google.protobuf import any_pb2, descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2

from alive.agent.v1 import agent_service_pb2, workspace_service_pb2

_FILES = (agent_service_pb2.DESCRIPTOR, workspace_service_pb2.DESCRIPTOR)

SERVICES = [service.full_name for file in _FILES for service in file.services_by_name.values()]
"""The services that can be called with JSON."""

_IN_ERRORS = (any_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)
"""What is shown of errors."""


def descriptors() -> str:
    """Return a FileDescriptorSet with everything that the services need, in base64."""
    found: dict[str, FileDescriptor] = {}
    for file in (*_FILES, *_IN_ERRORS):
        _add(file, found)
    files = descriptor_pb2.FileDescriptorSet()
    for file in found.values():
        file.CopyToProto(files.file.add())
    return base64.b64encode(files.SerializeToString()).decode()


def _add(file: FileDescriptor, found: dict[str, FileDescriptor]) -> None:
    """Add a file, behind those that it imports."""
    if file.name not in found:
        for imported in file.dependencies:
            _add(imported, found)
        found[file.name] = file
