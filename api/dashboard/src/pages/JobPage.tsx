import { get } from "../api/client";
import type { Job } from "../api/types";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { StatusMark } from "../components/StatusMark";
import { usePoll } from "../hooks/usePoll";
import { Checkpoints } from "../job/Checkpoints";
import { Curves } from "../job/Curves";
import { JobActions } from "../job/JobActions";
import { JobProgress } from "../job/JobProgress";
import { JobStudents } from "../job/JobStudents";
import { Logs } from "../job/Logs";
import { Samples } from "../job/Samples";
import { SpecCard } from "../job/SpecCard";
import { isOver } from "../job/isOver";
import { jobTitle } from "../job/title";
import { Timeline } from "../job/Timeline";
import { Link } from "../router";

export function JobPage({ id }: { id: string }) {
  const { data: job, error, refresh } = usePoll(id, (signal) => get<Job>(`/v1/jobs/${id}`, signal), 1500);
  if (!job) return <Notice error={error} />;
  // What a job leaves behind is read once more after its last change, then left alone.
  const every = isOver(job) ? null : 2000;
  const version = isOver(job) ? job.status : "live";
  return (
    <>
      <PageHead
        title={jobTitle(job)}
        crumbs={<><Link href="/jobs">Jobs</Link> / <span className="mono">{job.id}</span></>}
        lead={
          <span className="row">
            <StatusMark status={job.status} />
            <span>{job.detail}{job.waiting && <> Now: {job.waiting}.</>}</span>
          </span>
        }
      >
        <JobActions job={job} onDone={refresh} />
      </PageHead>
      <Notice error={error} />
      <div className="stack">
        <JobProgress job={job} />
        <div className="split">
          <div className="stack">
            <Samples jobId={id} every={every} version={version} />
            <Curves jobId={id} every={every} version={version} />
            <Logs jobId={id} live={!isOver(job)} />
          </div>
          <div className="stack">
            <JobStudents ids={job.students} />
            <Timeline job={job} every={every} version={version} />
            <Checkpoints jobId={id} every={every} version={version} />
            <SpecCard job={job} />
          </div>
        </div>
      </div>
    </>
  );
}
