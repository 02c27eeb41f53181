"""How the command line draws things: tables, a job's progress, figures."""

import math
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.schemas import (
    AuditView,
    DatasetView,
    DeliveryView,
    EndpointView,
    JobView,
    KeyView,
    MethodView,
    ProjectView,
    StudentView,
    TeacherView,
    WebhookView,
)
from api.validation import Validation
from service.observations import Figures
from service.settings import Shown

console = Console(width=None if sys.stdout.isatty() else 160)
COLOURS = {
    "succeeded": "green",
    "ready": "green",
    "delivered": "green",
    "dead": "red",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
}


def coloured(status: str) -> str:
    return f"[{COLOURS.get(status, 'cyan')}]{status}[/]"


def age(when: datetime) -> str:
    """Time since `when` in the largest unit that is at least 1."""
    seconds = (datetime.now(UTC) - when).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def jobs_table(jobs: Iterable[JobView]) -> Table:
    out = table("ID", "NAME", "STATUS", "PROGRESS", "TEACHER", "METHOD", "AGE")
    for job in jobs:
        out.add_row(
            job.id,
            job.name or "",
            coloured(job.status),
            f"{job.progress:.0%}",
            job.teacher,
            " → ".join(job.methods),
            age(job.created_at),
        )
    return out


def job_sheet(job: JobView) -> Table:
    """One job, a line per fact."""
    out = table("", "")
    out.show_header = False
    eta = "" if job.eta_seconds is None else f", about {job.eta_seconds:.0f} s to go"
    rows = {
        "id": job.id,
        "name": job.name or "–",
        "status": f"{coloured(job.status)}  {job.detail}",
        "progress": f"{job.step} of {job.total_steps} steps{eta}",
        "teacher": job.teacher,
        "data": job.data or "–",
        "method": " → ".join(job.methods),
        "attempts": ", ".join(f"{a.number}: {a.reason or 'running'}" for a in job.attempts) or "none yet",
        "students": ", ".join(job.students) or "none yet",
    }
    for name, value in rows.items():
        out.add_row(f"[bold]{name}[/]", value)
    return out


def validation_sheet(found: Validation) -> Table:
    """What a job would be: a line for each thing to know, and one for each advice."""
    out = Table(box=None, show_header=False, pad_edge=False)
    out.add_row("steps", str(found.total_steps))
    out.add_row("students", "; ".join("in " + ", ".join(map(str, steps)) for steps in found.students))
    if found.estimated_memory_bytes is None or found.memory is None:
        out.add_row("memory", "not known: the teacher was registered before this was estimated")
    else:
        parts = [f"{part} {_size(number)}" for part, number in found.memory if number]
        out.add_row(
            "memory", f"{_size(found.estimated_memory_bytes)} on each worker, {found.memory_phase}: {', '.join(parts)}"
        )
    if found.step_seconds is not None:
        out.add_row("step", f"{found.step_seconds:.2g} s")
    for sentence in found.advice:
        out.add_row("[yellow]too large[/]", escape(sentence))
    return out


def _size(number: float) -> str:
    """Bytes in the largest unit of 1024 that is at least 1."""
    unit = min(int(math.log2(max(number, 1)) // 10), 4)
    return f"{number / 1024**unit:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def students_table(students: Iterable[StudentView]) -> Table:
    out = table("ID", "NAME", "METHOD", "STEPS", "FRÉCHET", "TEACHER", "ACCURACY", "MS/IMAGE", "AGE")
    for student in students:
        own = student.figures[student.steps[0]]
        reference = student.teacher_figures[max(student.teacher_figures)]
        out.add_row(
            student.id,
            student.name,
            student.method,
            ",".join(map(str, student.steps)),
            f"{own.frechet:.2f}",
            f"{reference.frechet:.2f}",
            accuracy(own),
            f"{own.ms_per_image:.2f}",
            age(student.created_at),
        )
    return out


def accuracy(figures: Figures) -> str:
    return "–" if figures.accuracy is None else f"{figures.accuracy:.3f}"


def figures_table(student: StudentView) -> Table:
    """A student's figures above its teacher's."""
    out = table("", "STEPS", "FRÉCHET", "KERNEL", "ACCURACY", "PRECISION", "RECALL", "DIVERSITY", "MS/IMAGE")
    for who, rows in (("student", student.figures), ("teacher", student.teacher_figures)):
        for steps, f in sorted(rows.items()):
            numbers = (f.frechet, f.kernel, f.accuracy, f.precision, f.recall, f.diversity, f.ms_per_image)
            out.add_row(who, str(steps), *("–" if n is None else f"{n:.3f}" for n in numbers))
    return out


def endpoints_table(endpoints: Iterable[EndpointView]) -> Table:
    out = table("NAME", "STATUS", "STUDENT", "STEPS", "URL", "AGE")
    for e in endpoints:
        steps = ",".join(map(str, e.steps))
        out.add_row(e.name, coloured(e.status), e.student, steps, e.url, age(e.created_at))
    return out


def webhooks_table(webhooks: Iterable[WebhookView]) -> Table:
    out = table("ID", "URL", "EVENTS", "AGE")
    for w in webhooks:
        out.add_row(w.id, w.url, ", ".join(w.events) or "all", age(w.created_at))
    return out


def deliveries_table(deliveries: Iterable[DeliveryView]) -> Table:
    out = table("ID", "TYPE", "STATUS", "TRIES", "LAST", "AGE")
    for d in deliveries:
        last = d.last_error or ("" if d.last_status is None else str(d.last_status))
        out.add_row(d.id, d.type, coloured(d.status), str(d.attempts), last, age(d.created_at))
    return out


def methods_table(methods: Iterable[MethodView]) -> Table:
    out = table("KIND", "FAMILY", "PAPER", "DATA", "WHAT IT DOES")
    for method in methods:
        out.add_row(method.kind, method.family, method.paper, method.data_need, method.summary)
    return out


def settings_table(settings: Iterable[Shown]) -> Table:
    out = table("SETTING", "VALUE", "SOURCE")
    for setting in settings:
        out.add_row(setting.name, escape(setting.value), escape(setting.source))
    return out


def teachers_table(teachers: Iterable[TeacherView]) -> Table:
    out = table("ID", "NAME", "FAMILY", "IMAGE", "ASKED FOR BY", "PREDICTS", "PARAMETERS", "SOURCE")
    for t in teachers:
        size, asked = "×".join(map(str, t.image_size)), "–" if t.num_classes is None else f"{t.num_classes} classes"
        asked = "prompts" if t.text else asked
        out.add_row(t.id, t.name, t.family, size, asked, t.prediction_type, f"{t.parameters:,}", t.source)
    return out


def datasets_table(datasets: Iterable[DatasetView]) -> Table:
    out = table("ID", "NAME", "FORMAT", "CONTENT", "CLASSES", "SAMPLES", "BYTES", "SOURCE")
    for d in datasets:
        classes = "–" if d.classes is None else str(len(d.classes))
        out.add_row(d.id, d.name, d.format, d.content, classes, f"{d.samples:,}", f"{d.bytes:,}", d.source)
    return out


def job_progress() -> Progress:
    """Progress bars of one or many jobs; `show` moves them."""
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]:<10}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        console=console,
    )


def show(progress: Progress, task: TaskID, job: JobView) -> None:
    eta = "" if job.eta_seconds is None else f"about {job.eta_seconds:.0f} s to go"
    progress.update(task, completed=job.step, total=job.total_steps, status=job.status, eta=eta)


def projects_table(projects: Iterable[ProjectView]) -> Table:
    out = table("ID", "NAME", "WEIGHT", "JOBS", "GPUS", "GPU-HOURS", "PRIORITY", "QUEUED")
    for one in projects:
        used = one.in_use
        out.add_row(
            one.id,
            one.name,
            f"{one.weight:g}",
            f"{used.active} of {_limit(one.max_jobs)}",
            f"{used.gpus:g} of {_limit(one.max_gpus)}",
            f"≤ {_limit(one.max_gpu_hours)}",
            f"≤ {one.max_priority}",
            str(used.queued),
        )
    return out


def _limit(value: float | None) -> str:
    return "∞" if value is None else f"{value:g}"


def keys_table(keys: Iterable[KeyView]) -> Table:
    out = table("ID", "KEY", "NAME", "ROLE", "PROJECT", "EXPIRES", "LAST USED", "AGE")
    for one in keys:
        expires = "never" if one.expires_at is None else f"{one.expires_at:%Y-%m-%d}"
        ends = "[red]revoked[/]" if one.revoked_at is not None else expires
        used = "never" if one.last_used_at is None else age(one.last_used_at)
        out.add_row(one.id, f"{one.prefix}…", one.name, one.role, one.project_id, ends, used, age(one.created_at))
    return out


def audit_table(entries: Iterable[AuditView]) -> Table:
    out = table("SEQ", "AT", "KEY", "ACTION", "TARGET", "REQUEST")
    for one in entries:
        seq = "–" if one.seq is None else str(one.seq)
        out.add_row(seq, f"{one.at:%Y-%m-%d %H:%M:%S}", one.key_id or "–", one.action, one.target, one.request_id)
    return out
