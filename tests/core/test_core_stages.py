"""A job's chain of stages on the digits teacher: what is trained, stopped, resumed, previewed and exported."""

from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import TeacherInvalid
from service.spec import JobSpec
from service.status import Wish
from workers import finish, stages
from workers.diffusion.guidance import Guided
from workers.methods.dmd2 import DMD2
from workers.methods.progressive import Progressive
from workers.models.mixture import MlpDenoiser
from workers.models.unet2d import load_teacher

TEACHER = Path(stages.__file__).parent / "assets" / "digits" / "teacher"
PROGRESSIVE = {"kind": "progressive", "first_steps": 2, "rung_iterations": 1, "batch_size": 4}
DMD2_STAGE = {"kind": "dmd2", "iterations": 3, "batch_size": 4, "fake_updates": 1, "gan_weight": 0.01}


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Instead of judging and writing students, keep what would be exported."""
    calls: list[Any] = []
    monkeypatch.setattr(finish, "export", lambda _, network, *rest, **more: calls.append((network().unet, *rest)))
    return calls


def job(*methods: dict[str, Any], **fields: Any) -> JobSpec:
    defaults = {"teacher": "digits", "preview_every": 3, "checkpoint_every": 2, "evaluation": {"teacher_steps": 2}}
    return JobSpec.model_validate({**defaults, "stages": [{"method": m} for m in methods], **fields})


def test_a_chain_trains_every_stage_and_exports_every_student(exported: list[Any], local_host: Any) -> None:
    host, spec = local_host(), job(PROGRESSIVE, DMD2_STAGE)
    outcome = stages.run(spec, TEACHER, host)
    assert outcome == stages.Outcome(None, spec.total_steps())
    assert list(host.steps) == list(range(1, spec.total_steps() + 1))
    assert [(label, stage) for _, _, _, label, stage, *_ in exported] == [
        ("progressive-2", 0),
        ("progressive-1", 0),
        ("dmd2-1", 1),
    ]
    assert host.phases == ["training", "evaluating"]
    assert host.samples[0] == (0, 0, "teacher", 2)
    assert (7, 1, "student", 1) in host.samples
    assert host.samples.count((0, 0, "teacher", 2)) == 1
    seconds = [args[-1] for args in exported]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_a_job_stopped_in_its_second_stage_goes_on_from_there(
    exported: list[Any], local_host: Any, tmp_path: Path
) -> None:
    spec = job(PROGRESSIVE, DMD2_STAGE)
    stages.run(spec, TEACHER, local_host())
    whole = [unet.state_dict() for unet, *_ in exported]
    exported.clear()

    host = local_host(tmp_path)
    host.stop_at, host.stop_wish = 5, Wish.CANCEL
    assert stages.run(spec, TEACHER, host) == stages.Outcome(Wish.CANCEL, 5)
    assert host.saved[-1] == 5
    assert not exported
    host.stop_at = None
    assert stages.run(spec, TEACHER, host).step == 7
    assert list(host.steps) == [1, 2, 3, 4, 5, 6, 7]
    for ours, theirs in zip((unet.state_dict() for unet, *_ in exported), whole, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_job_that_died_while_exporting_trains_nothing_again(
    exported: list[Any], local_host: Any, tmp_path: Path
) -> None:
    host, spec = local_host(tmp_path), job(PROGRESSIVE)
    stages.run(spec, TEACHER, host)
    stages.run(spec, TEACHER, host)
    assert len(exported) == 4
    assert len(host.steps) == spec.total_steps()
    assert host.phases == ["training", "evaluating", "evaluating"]


def test_the_seed_decides(exported: list[Any], local_host: Any) -> None:
    for seed in (0, 0, 1):
        stages.run(job({"kind": "consistency", "iterations": 2, "batch_size": 4}, seed=seed), TEACHER, local_host())
    first, same, other = (unet.conv_in.weight for unet, *_ in exported)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_two_stages_of_one_kind_get_labels_of_their_own(exported: list[Any], local_host: Any) -> None:
    short = {"kind": "consistency", "iterations": 1, "batch_size": 4}
    stages.run(job(short, short), TEACHER, local_host())
    assert [args[3] for args in exported] == ["consistency-1", "consistency-1-stage-1"]


def test_what_teaches_and_what_starts_each_stage() -> None:
    teacher, spec = load_teacher(TEACHER), job(PROGRESSIVE | {"guidance_scale": 2}, DMD2_STAGE)
    ladder, matching = (stage.method for stage in spec.chain())
    first = stages.build(ladder, teacher)
    assert isinstance(first, Progressive)
    assert isinstance(first.teacher, Guided)
    start = teacher.trainable_copy()
    with torch.no_grad():
        next(start.parameters()).add_(1)
    later = stages.build(ladder, teacher, start)
    assert later.teacher is start, "the student of the stage before has learnt the guided result already"
    second = stages.build(matching, teacher, start)
    assert isinstance(second, DMD2)
    assert second.teacher is teacher
    assert torch.equal(next(second.student.parameters()), next(start.parameters()))
    assert torch.equal(second.fake.unet.conv_in.weight, teacher.unet.conv_in.weight)  # type: ignore[union-attr]


def test_a_method_that_needs_images_says_so_where_there_are_none() -> None:
    with pytest.raises(TeacherInvalid, match="dmd2 with gan_weight 0"):
        stages.image_source(MlpDenoiser())
