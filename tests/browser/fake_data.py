"""Rich, deterministic data for the dashboard's browser tests: jobs in every state, students, endpoints, pictures."""

import io
import math
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from api.schemas import (
    AttemptView,
    CheckpointView,
    EndpointView,
    EventView,
    JobView,
    LogView,
    MetricView,
    SampleView,
    StudentView,
    TeacherView,
)
from service.observations import Figures
from service.spec import JobSpec
from service.status import REASONS, Reason, Status, Wish

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**delta: float) -> datetime:
    return NOW - timedelta(**delta)


@cache
def digits() -> np.ndarray:
    """One 8x8 digit of each class and of each of 16 seeds: [16, 10, 8, 8] in 0..1."""
    data = load_digits()
    return np.stack([np.stack([data.images[data.target == c][s] for c in range(10)]) for s in range(16)]) / 16.0


def png(rows: list[np.ndarray], scale: int = 8, labels: list[str] | None = None) -> bytes:
    """Rows of 8x8 pictures as the workers draw them: enlarged, apart, on light paper, with labels at the left."""
    side, gap = 8 * scale, max(2, scale // 2)
    margin = 130 if labels else gap
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (margin + columns * (side + gap), gap + len(rows) * (side + gap)), (250, 250, 250))
    pen = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        top = gap + i * (side + gap)
        if labels:
            pen.text((margin - 2 * gap, top + side // 2), labels[i], (40, 40, 40), anchor="rm", font_size=16)
        for j, image in enumerate(row):
            cell = Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)).resize(
                (side, side), Image.Resampling.NEAREST
            )
            canvas.paste(cell, (margin + j * (side + gap), top))
    return encoded(canvas)


def encoded(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def bare_png(image: np.ndarray) -> bytes:
    """One picture, one picture pixel per image pixel, as endpoints answer."""
    return encoded(Image.fromarray((image.clip(0, 1) * 255).astype(np.uint8)))


def noisy(images: np.ndarray, amount: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.5, 0.4, images.shape)
    return images * (1 - amount) + noise * amount


SPECS: dict[str, JobSpec] = {
    "progressive": JobSpec.model_validate(
        {"name": "digits-halving", "teacher": "digits", "method": {"kind": "progressive", "first_steps": 4}}
    ),
    "consistency": JobSpec.model_validate({"teacher": "digits", "method": {"kind": "consistency", "grid_steps": 24}}),
    "dmd2": JobSpec.model_validate(
        {"name": "digits-dmd2", "teacher": "digits", "method": {"kind": "dmd2", "iterations": 600}, "seed": 7}
    ),
    "chain": JobSpec.model_validate(
        {
            "name": "halving-then-matching",
            "teacher": "digits",
            "stages": [
                {"method": {"kind": "progressive", "rung_iterations": 200}},
                {"method": {"kind": "dmd2", "iterations": 400, "gan_weight": 0.05}},
            ],
        }
    ),
}


def job(
    number: int,
    spec: str,
    status: Status,
    reason: Reason,
    done: float,
    age_minutes: float,
    *,
    detail: str | None = None,
    attempts: int = 1,
    students: list[str] | None = None,
    wish: Wish = Wish.RUN,
) -> JobView:
    body = SPECS[spec]
    total = body.total_steps()
    over = status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
    created = ago(minutes=age_minutes)
    key = f"job_01jd{number:04d}"
    return JobView(
        id=key,
        name=body.name,
        status=status,
        reason=reason,
        detail=detail or REASONS[reason],
        wish=wish,
        waiting="needs 4 GPUs, 2 free; 1 job is ahead of it" if status is Status.QUEUED else None,
        priority=body.priority,
        failures=0,
        losses=max(0, attempts - 1),
        preemptions=0,
        teacher=body.teacher,
        data=body.data,
        methods=[stage.method.kind for stage in body.chain()],
        spec=body,
        step=int(done * total),
        total_steps=total,
        progress=done,
        eta_seconds=None if over or done == 0 else (1 - done) * 190,
        created_at=created,
        requeued_at=None,
        updated_at=created + timedelta(minutes=1),
        started_at=created + timedelta(seconds=14) if attempts else None,
        finished_at=created + timedelta(minutes=4) if over else None,
        attempts=[
            AttemptView(
                id=f"att_{number}_{i}",
                number=i,
                submission_id=f"{key}-a{i}",
                created_at=created + timedelta(seconds=70 * (i - 1) + 3),
                ended_at=created + timedelta(seconds=70 * i) if i < attempts or over else None,
                last_report_at=created + timedelta(seconds=70 * i - 2),
                reason=Reason.DRIVER_DIED if i < attempts else reason if over else None,
                detail=REASONS[Reason.DRIVER_DIED] if i < attempts else None,
            )
            for i in range(1, attempts + 1)
        ],
        students=students or [],
    )


def jobs() -> list[JobView]:
    """Newest first."""
    s, r = Status, Reason
    made = [
        job(90, "progressive", s.QUEUED, r.SUBMITTED, 0, 0.2, attempts=0),
        job(89, "chain", s.STARTING, r.DISPATCHED, 0, 0.6),
        job(88, "progressive", s.RUNNING, r.TRAINING, 0.38, 3.1, attempts=2),
        job(87, "consistency", s.FINISHING, r.EVALUATING, 1, 6, students=[]),
        job(86, "dmd2", s.PAUSED, r.USER_PAUSE, 0.51, 31, wish=Wish.PAUSE),
        job(85, "dmd2", s.SUCCEEDED, r.EXPORTED, 1, 75, students=["stu_dmd2"]),
        job(
            84,
            "consistency",
            s.FAILED,
            r.DIVERGED,
            0.22,
            130,
            detail="loss became NaN at step 176; lower learning_rate (now 0.05) and submit again.",
        ),
        job(83, "progressive", s.SUCCEEDED, r.EXPORTED, 1, 200, students=["stu_prog4", "stu_prog2", "stu_prog1"]),
        job(82, "consistency", s.CANCELLED, r.USER_CANCEL, 0.4, 320),
    ]
    old = [
        job(n, ("consistency", "progressive", "dmd2")[n % 3], s.SUCCEEDED, r.EXPORTED, 1, 1440 + (81 - n) * 190.0)
        for n in range(81, 40, -1)
    ]
    return made + old


def events(view: JobView) -> list[EventView]:
    told: list[tuple[str, Status | None, Reason | None, str, float]] = [
        ("status", Status.QUEUED, Reason.SUBMITTED, REASONS[Reason.SUBMITTED], 0)
    ]
    for attempt in view.attempts:
        at = 70.0 * (attempt.number - 1)
        told += [
            ("attempt", None, None, f"Attempt {attempt.number} was submitted as {attempt.submission_id}.", at + 3),
            ("status", Status.STARTING, Reason.DISPATCHED, REASONS[Reason.DISPATCHED], at + 3),
        ]
        if view.status is Status.STARTING:
            continue
        told.append(("status", Status.RUNNING, Reason.TRAINING, REASONS[Reason.TRAINING], at + 14))
        if attempt.reason is Reason.DRIVER_DIED:
            told.append(("status", Status.QUEUED, Reason.DRIVER_DIED, REASONS[Reason.DRIVER_DIED], at + 68))
    if view.status in (Status.FINISHING, Status.SUCCEEDED):
        told.append(("status", Status.FINISHING, Reason.EVALUATING, REASONS[Reason.EVALUATING], 180))
    if view.status not in (Status.QUEUED, Status.STARTING, Status.RUNNING, Status.FINISHING):
        told.append(("status", view.status, view.reason, view.detail, 240))
    return [
        EventView.model_validate(
            {
                "seq": i + 1,
                "at": view.created_at + timedelta(seconds=at),
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "data": {},
            }
        )
        for i, (kind, status, reason, message, at) in enumerate(told)
    ]


def metrics(view: JobView) -> list[MetricView]:
    rng = np.random.default_rng(int(view.id[-4:]))
    first = view.total_steps / max(len(view.methods), 1)
    points = []
    for step in range(1, view.step + 1):
        fade = math.exp(-3 * (step % 300) / 300)
        values = {
            "loss": float(0.02 + 0.4 * fade * rng.lognormal(0, 0.15)),
            "grad_norm": float(0.3 + 1.4 * fade * rng.lognormal(0, 0.25)),
            "learning_rate": 1e-3 * 0.5 * (1 + math.cos(math.pi * step / view.total_steps)),
            "images_per_second": float(rng.normal(1420, 35)),
        }
        if view.methods[0] == "dmd2":
            values["fake_loss"] = float(0.1 + 0.3 * fade * rng.lognormal(0, 0.2))
            values["score_gap"] = float(0.5 * fade + rng.normal(0.05, 0.01))
        at = view.created_at + timedelta(seconds=14 + step * 0.19)
        points.append(MetricView(step=step, stage=int((step - 1) // first), at=at, values=values))
    return points


def samples(view: JobView) -> list[SampleView]:
    def one(step: int, role: str, steps: int) -> SampleView:
        key = f"{role}-{step}-{steps}"
        return SampleView.model_validate(
            {
                "id": f"{view.id}-{key}",
                "step": step,
                "stage": 0,
                "role": role,
                "sampling_steps": steps,
                "at": view.created_at + timedelta(seconds=14 + step * 0.19),
                "url": f"/v1/jobs/{view.id}/samples/{key}.png",
            }
        )

    if view.step == 0:
        return []
    budgets = (1, 2, 4) if view.methods == ["consistency"] else (1,)
    rows = [one(0, "teacher", 50)] + [one(0, "teacher", n) for n in budgets]
    return rows + [one(s, "student", n) for s in range(0, view.step + 1, 50) for n in budgets]


def logs(view: JobView) -> list[LogView]:
    lines = [("info", "teacher digits loaded: UNet2DModel, 160k parameters, v_prediction")]
    for step in range(10, view.step + 1, 10):
        lines.append(("info", f"step {step}/{view.total_steps} loss {0.02 + 0.4 * math.exp(-step / 100):.4f}"))
        if step % 100 == 0:
            lines += [("debug", f"checkpoint written at step {step} in 0.04 s"), ("info", f"preview at step {step}")]
        if step == 170:
            lines.append(("warning", "gradient norm 9.31 was clipped to 1.0"))
    if view.status is Status.FAILED:
        lines.append(("error", view.detail))
    return [
        LogView(
            seq=i + 1, at=view.created_at + timedelta(seconds=14 + i), level=level, rank=i % 2, attempt=1, message=text
        )
        for i, (level, text) in enumerate(lines)
    ]


def checkpoints(view: JobView) -> list[CheckpointView]:
    return [
        CheckpointView(
            step=s,
            at=view.created_at + timedelta(seconds=s * 0.2),
            attempt=1,
            path=f"jobs/{view.id}/checkpoints/{s:07d}",
            bytes=2_614_272,
        )
        for s in range(100, view.step + 1, 100)
    ]


def figures(frechet: float, ms: float, recall: float) -> Figures:
    return Figures(
        frechet=frechet,
        kernel=frechet / 40,
        accuracy=0.991,
        precision=0.92,
        recall=recall,
        diversity=0.6 + recall / 3,
        nearest_neighbour_ratio=1.02,
        ms_per_image=ms,
    )


TEACHER_FIGURES = {
    50: figures(0.55, 9.1, 0.86),
    4: figures(1.02, 0.74, 0.59),
    2: figures(2.27, 0.38, 0.19),
    1: figures(9.16, 0.19, 0),
}


def students() -> list[StudentView]:
    def one(key: str, name: str, method: str, job_id: str, steps: dict[int, float], minutes: float) -> StudentView:
        return StudentView(
            id=key,
            job_id=job_id,
            name=name,
            teacher="digits",
            method=method,
            steps=list(steps),
            image_size=[1, 8, 8],
            num_classes=10,
            text=False,
            parameters=160_817,
            bytes=664_012,
            sha256=f"{hash(key) & 0xFFFFFFFFFFFF:064x}",
            training_seconds=71.4,
            figures={n: figures(f, 0.19 * n, 0.8 - f / 20) for n, f in steps.items()},
            teacher_figures={n: TEACHER_FIGURES[n] for n in [50, *steps]},
            grid_url=f"/v1/students/{key}/grid.png",
            archive_url=f"/v1/students/{key}/archive",
            created_at=ago(minutes=minutes),
        )

    return [
        one("stu_dmd2", "digits-dmd2-1", "dmd2", "job_01jd0085", {1: 0.81}, 70),
        one("stu_prog1", "digits-halving-progressive-1", "progressive", "job_01jd0083", {1: 0.71}, 196),
        one("stu_prog2", "digits-halving-progressive-2", "progressive", "job_01jd0083", {2: 0.65}, 196),
        one("stu_prog4", "digits-halving-progressive-4", "progressive", "job_01jd0083", {4: 0.60}, 196),
        one("stu_cd", "consistency-1-2-4", "consistency", "job_01jd0079", {1: 0.88, 2: 0.72, 4: 0.62}, 1800),
    ]


def endpoint(name: str, student: StudentView, status: str, detail: str, with_teacher: bool = True) -> EndpointView:
    return EndpointView.model_validate(
        {
            "id": f"end_{name}",
            "name": name,
            "student": student.name,
            "student_id": student.id,
            "with_teacher": with_teacher,
            "status": status,
            "detail": detail,
            "url": "http://127.0.0.1:8701/v1",
            "steps": student.steps,
            "num_classes": student.num_classes,
            "text": student.text,
            "image_size": student.image_size,
            "created_at": ago(minutes=40),
        }
    )


def endpoints() -> list[EndpointView]:
    made = {s.id: s for s in students()}
    return [
        endpoint("digits-fast", made["stu_prog1"], "ready", "Warm and answering."),
        endpoint("digits-any", made["stu_cd"], "ready", "Warm and answering."),
        endpoint("digits-matched", made["stu_dmd2"], "deploying", "The replica is loading the student."),
        endpoint(
            "broken", made["stu_prog4"], "failed", "The replica died while loading: model.safetensors is cut short."
        ),
    ]


TEACHER = TeacherView(
    id="tea_digits",
    name="digits",
    source="builtin:digits",
    family="unet2d",
    pipeline="DDIMPipeline",
    scheduler="DDIMScheduler",
    prediction_type="v_prediction",
    image_size=[1, 8, 8],
    num_classes=10,
    text=False,
    parameters=160_817,
    sha256="7d1f4c2b90aa53e6c8b1d09e4f7a6b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a",
    created_at=ago(days=3),
)
