import { get } from "../api/client";
import type { Endpoint, Page, Student } from "../api/types";
import { usePoll } from "../hooks/usePoll";
import { Link } from "../router";
import { ArrowIcon } from "./icons";

/** Teacher, job, student, endpoints: where it came from and where it went. */
export function Lineage({ student }: { student: Student }) {
  const { data } = usePoll("lineage", (signal) => get<Page<Endpoint>>("/v1/endpoints?limit=100", signal), 5000);
  const served = data?.data.filter((endpoint) => endpoint.student_id === student.id) ?? [];
  return (
    <nav className="lineage" aria-label="Lineage">
      <Link href="/teachers"><small>teacher</small><strong className="teacher-ink">{student.teacher}</strong></Link>
      <ArrowIcon />
      <Link href={`/jobs/${student.job_id}`}><small>job, {student.method}</small><span className="mono">{student.job_id}</span></Link>
      <ArrowIcon />
      <span className="node"><small>student</small><strong className="student-ink">{student.name}</strong></span>
      <ArrowIcon />
      {served.length === 0 && <span className="node"><small>endpoints</small><span className="quiet">none yet</span></span>}
      {served.map((endpoint) => (
        <Link key={endpoint.id} href={`/playground?endpoint=${endpoint.name}`}>
          <small>endpoint, {endpoint.status}</small><strong>{endpoint.name}</strong>
        </Link>
      ))}
    </nav>
  );
}
