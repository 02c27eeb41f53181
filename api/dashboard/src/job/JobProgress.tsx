import type { Job } from "../api/types";
import { Flow } from "../components/Flow";
import { ProgressCells } from "../components/ProgressCells";
import { count, duration, plural } from "../format";
import { useNow } from "../hooks/useNow";

export function JobProgress({ job }: { job: Job }) {
  const now = useNow();
  const from = Date.parse(job.started_at ?? job.created_at);
  const to = job.finished_at ? Date.parse(job.finished_at) : now;
  return (
    <div className="job-progress">
      <div className="figures num">
        <span className="big">{Math.floor(job.progress * 100)} %</span>
        <span>{count(job.step)} <small>of {plural(job.total_steps, "step")}</small></span>
        {job.eta_seconds !== null && <span>{duration(job.eta_seconds)} <small>left</small></span>}
        {job.started_at && <span>{duration((to - from) / 1000)} <small>since the first start</small></span>}
        {job.priority !== 0 && <span>{job.priority} <small>priority</small></span>}
        {job.attempts.length > 1 && <span>{job.attempts.length} <small>attempts</small></span>}
        <span className="figures-flow"><Flow teacher={job.teacher} methods={job.methods} /></span>
      </div>
      <ProgressCells progress={job.progress} status={job.status} cells={56} />
    </div>
  );
}
