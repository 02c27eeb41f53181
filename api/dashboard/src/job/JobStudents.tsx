import { get } from "../api/client";
import type { Student } from "../api/types";
import { DeployButton } from "../components/DeployButton";
import { Notice } from "../components/Notice";
import { figure } from "../format";
import { usePoll } from "../hooks/usePoll";
import { Link } from "../router";

function reference(student: Student): string {
  const steps = Math.max(...Object.keys(student.teacher_figures).map(Number));
  return `teacher in ${steps}: ${figure(student.teacher_figures[String(steps)]?.frechet)}`;
}

/** The students that the job left, each with its distance beside the teacher's. */
export function JobStudents({ ids }: { ids: string[] }) {
  const { data, error } = usePoll(
    `students ${ids.join(" ")}`,
    (signal) => Promise.all(ids.map((id) => get<Student>(`/v1/students/${id}`, signal))),
    null,
  );
  if (ids.length === 0) return null;
  return (
    <section className="card" aria-labelledby="job-students">
      <div className="card-head"><h2 id="job-students">{ids.length === 1 ? "Student" : "Students"}</h2></div>
      <Notice error={error} />
      {(data ?? []).map((student) => (
        <div key={student.id} className="linked">
          <div className="row spread">
            <Link href={`/students/${student.id}`}><strong>{student.name}</strong></Link>
            <DeployButton student={student} />
          </div>
          <span className="small num">
            Fréchet{" "}
            {Object.entries(student.figures).map(([n, f]) => (
              <span key={n}><strong className="student-ink">{figure(f.frechet)}</strong> in {n}, </span>
            ))}
            <span className="teacher-ink">{reference(student)}</span>
          </span>
        </div>
      ))}
    </section>
  );
}
