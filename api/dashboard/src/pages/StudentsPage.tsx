import { get, query } from "../api/client";
import type { Page, Student } from "../api/types";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { StudentTile } from "../components/StudentTile";
import { usePoll } from "../hooks/usePoll";
import { Link, useQuery } from "../router";

export function StudentsPage() {
  const [asked, change] = useQuery();
  const after = asked.get("after");
  const path = `/v1/students${query({ limit: 12, after })}`;
  const { data, error } = usePoll(path, (signal) => get<Page<Student>>(path, signal), 5000);
  return (
    <>
      <PageHead title="Students"
        lead="Each is a plain diffusers folder, judged on held-out data beside its teacher." />
      <Notice error={error} />
      {data && data.data.length === 0 && (
        <div className="empty">
          <h2>No students yet</h2>
          <p className="quiet">A job leaves one when it succeeds.</p>
          <Link href="/jobs/new" className="button primary">Start a job</Link>
        </div>
      )}
      <div className="tiles">{data?.data.map((student) => <StudentTile key={student.id} student={student} />)}</div>
      {data && (after !== null || data.has_more) && (
        <div className="pager">
          {after !== null ? (
            <button type="button" className="button" onClick={() => change({ after: null })}>Newest</button>
          ) : <span />}
          {data.has_more && (
            <button type="button" className="button" onClick={() => change({ after: data.next })}>Older</button>
          )}
        </div>
      )}
    </>
  );
}
