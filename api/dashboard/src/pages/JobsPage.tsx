import { get, query } from "../api/client";
import type { Job, Page } from "../api/types";
import { JobFilters } from "../components/JobFilters";
import { JobLane } from "../components/JobLane";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { Snippet } from "../components/Snippet";
import { usePoll } from "../hooks/usePoll";
import { Link, useQuery } from "../router";

const CURL = `curl ${location.origin}/v1/jobs \\
  -H "Authorization: Bearer $FEWSTEP_API_KEY" -H "Content-Type: application/json" \\
  -d '{"teacher": "digits", "method": {"kind": "progressive"}}'`;

export function JobsPage() {
  const [asked, change] = useQuery();
  const filters = { status: asked.get("status"), method: asked.get("method"), teacher: asked.get("teacher") };
  const after = asked.get("after");
  const path = `/v1/jobs${query({ limit: 20, after, ...filters })}`;
  const { data, error } = usePoll(path, (signal) => get<Page<Job>>(path, signal), 2000);
  const filtered = Object.values(filters).some((value) => value !== null);

  return (
    <>
      <PageHead title="Jobs" lead="Each one turns a teacher into students that need only a few steps." />
      <JobFilters values={filters} onChange={(changes) => change({ ...changes, after: null })} />
      <Notice error={error} />
      {data && data.data.length > 0 && (
        <div className="lanes">
          {data.data.map((job) => <JobLane key={job.id} job={job} />)}
        </div>
      )}
      {data && data.data.length === 0 && filtered && (
        <div className="empty">
          <h2>No job matches</h2>
          <button type="button" className="button"
            onClick={() => change({ status: null, method: null, teacher: null, after: null })}>
            Clear the filters
          </button>
        </div>
      )}
      {data && data.data.length === 0 && !filtered && (
        <div className="empty">
          <h2>No jobs yet</h2>
          <p className="quiet">The digits teacher is ready. This distils it in a few minutes, even on a laptop:</p>
          <Snippet text={CURL} label="Submit with curl" />
          <Link href="/jobs/new" className="button primary">Or use the form</Link>
        </div>
      )}
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
