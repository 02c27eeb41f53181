"""What the training function says of its own end."""

import json

import pytest

from service.errors import DataInvalid, TeacherInvalid
from service.status import Reason
from workers.loop import _word


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (DataInvalid("2 images cannot be read."), Reason.DATA_INVALID, "2 images cannot be read."),
        (TeacherInvalid("unet/ is missing."), Reason.TEACHER_INVALID, "unet/ is missing."),
        (ZeroDivisionError("division by zero"), Reason.TRAINING_ERROR, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_user_can_mend_is_told_in_its_own_words(error: Exception, reason: Reason, message: str) -> None:
    word = json.loads(_word(error))
    assert (word["reason"], word["message"]) == (reason, message)
