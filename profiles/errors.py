"""What can go wrong here.

ProfileError
├── BadTrace        a file that is no trace, cannot be read, or holds no activity
└── CaptureFailed   a capture that could not begin or left nothing; `kind` says which way
"""

from enum import StrEnum


class ProfileError(Exception):
    """Anything that this package raises on purpose. The message is a sentence for people."""


class BadTrace(ProfileError):  # noqa: N818  (it says what is so)
    """The file is no trace, cannot be read, or holds nothing."""


class CaptureFailure(StrEnum):
    """Ways in which a capture fails; a study stores the word."""

    ABSENT = "absent"  # no profiler on this machine
    TOO_OLD = "too_old"
    NO_PERMISSION = "no_permission"
    REFUSED = "refused"  # the server does not answer /start_profile, or not with 200
    EMPTY = "empty"  # a report without GPU work, or none at all
    NOT_IMPORTED = "not_imported"  # a .qdstrm, and nothing to make a report of it
    OTHER = "other"


class CaptureFailed(ProfileError):  # noqa: N818
    """No trace, and why."""

    def __init__(self, kind: CaptureFailure, message: str) -> None:
        super().__init__(message)
        self.kind = kind
