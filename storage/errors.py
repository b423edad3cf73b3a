"""What can go wrong with volumes and mounts; `str()` is a sentence for a person."""

from __future__ import annotations


class StorageFailure(Exception):
    """Base of all."""


class InvalidMount(StorageFailure):
    """A mount that contradicts another one, or names no proper path."""


class NotAllowed(StorageFailure):
    """A bind mount that this host's configuration does not allow."""


class NotFound(StorageFailure):
    """The volume or path that was named does not exist on this host."""


class NoSpace(StorageFailure):
    """The disk that holds the volumes is full."""
