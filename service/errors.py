"""Every error that a user can meet, as a tree; each has a stable code and an HTTP status.

FewstepError
├── InvalidRequest 422   the body or a query parameter is wrong; `pointers` name the fields
├── Unauthorized 401     no key, or a wrong one
├── Forbidden 403        the key's role does not allow it
├── NotFound 404
├── Conflict 409         the state does not allow it
│   ├── AttemptFenced 409    a report from an attempt that is no longer the job's current one
│   └── InProgress 409       the first request with this Idempotency-Key is not over yet; try again
├── IdempotencyMismatch 422
├── TooLarge 413
├── NotReady 503         something behind the API cannot be reached; try again
│   ├── DatabaseUnavailable 503
│   ├── StoreUnavailable 503     the artifact store does not answer, or with an error
│   ├── StorageFull 503          a disk has no space left
│   └── HubUnavailable 503       the Hugging Face hub does not answer, or with an error
├── TeacherInvalid 422   the teacher's folder cannot be used
└── DataInvalid 422      the dataset cannot be used
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pointer:
    """One wrong field: a JSON pointer into the request, and what to do about it."""

    pointer: str
    detail: str


def unknown(thing: str, asked: str, known: Sequence[str]) -> str:
    """The sentence for a name that is not there, with the one that may have been meant."""
    near = difflib.get_close_matches(asked, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"There is no such {thing}; {hint}Registered are: {', '.join(known[:10]) or 'none yet'}."


class FewstepError(Exception):
    """Base of all errors that are answered with problem+json."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(self, detail: str, pointers: list[Pointer] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointers = pointers or []


class InvalidRequest(FewstepError):
    status, code, title = 422, "invalid_request", "The request is not valid"


class Unauthorized(FewstepError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"


class Forbidden(FewstepError):
    status, code, title = 403, "forbidden", "The API key's role does not allow this"


class NotFound(FewstepError):
    status, code, title = 404, "not_found", "Not found"


class Conflict(FewstepError):
    status, code, title = 409, "conflict", "The current state does not allow this"


class AttemptFenced(Conflict):
    code, title = "attempt_fenced", "This attempt is no longer the job's current one"


class InProgress(Conflict):
    code, title = "idempotency_key_in_use", "A request with this Idempotency-Key is in progress"


class IdempotencyMismatch(FewstepError):
    status, code, title = 422, "idempotency_key_reused", "The Idempotency-Key was used with another body"


class TooLarge(FewstepError):
    status, code, title = 413, "body_too_large", "The request body is too large"


class NotReady(FewstepError):
    status, code, title = 503, "not_ready", "Not ready"


class DatabaseUnavailable(NotReady):
    code, title = "database_unavailable", "The database cannot be reached"


class StoreUnavailable(NotReady):
    code, title = "store_unavailable", "The artifact store cannot be reached"


class StorageFull(NotReady):
    code, title = "storage_full", "There is no space left"


class HubUnavailable(NotReady):
    code, title = "hub_unavailable", "The model hub cannot be reached"


class TeacherInvalid(FewstepError):
    status, code, title = 422, "teacher_invalid", "The teacher cannot be used"


class DataInvalid(FewstepError):
    status, code, title = 422, "data_invalid", "The data cannot be used"
