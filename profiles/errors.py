"""The errors of this package.

ProfileError
├── BadTrace        a file that is not a trace, cannot be read, or holds no activity
└── CaptureFailed   a capture that could not begin or left nothing; `kind` says why
"""

from enum import StrEnum


class ProfileError(Exception):
    """Anything that this package raises on purpose. The message is a sentence for people."""


class BadTrace(ProfileError):  # noqa: N818  (it says what is so)
    """The file is not a trace, cannot be read, or holds nothing."""


class CaptureFailure(StrEnum):
    """Ways in which a capture can fail; a study stores the value."""

    ABSENT = "absent"  # no profiler on this machine
    TOO_OLD = "too_old"
    NO_PERMISSION = "no_permission"
    REFUSED = "refused"  # the server did not answer /start_profile or /stop_profile with 200
    EMPTY = "empty"  # a report without GPU work, or no report
    NOT_IMPORTED = "not_imported"  # a .qdstrm that could not be turned into a report
    OTHER = "other"


class CaptureFailed(ProfileError):  # noqa: N818
    """There is no trace; `kind` and the message say why."""

    def __init__(self, kind: CaptureFailure, message: str) -> None:
        super().__init__(message)
        self.kind = kind
