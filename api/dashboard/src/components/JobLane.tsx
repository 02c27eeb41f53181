import type { Job } from "../api/types";
import { age, count, duration } from "../format";
import { jobTitle } from "../job/title";
import { Link } from "../router";
import { Flow } from "./Flow";
import { ProgressCells } from "./ProgressCells";
import { StatusGlyph } from "./StatusMark";

/** One job in the list; the why is told where it is news. */
export function JobLane({ job }: { job: Job }) {
  const telling = job.status !== "succeeded" && job.status !== "running";
  const left = job.eta_seconds !== null && job.eta_seconds >= 1 ? `${duration(job.eta_seconds)} left` : "";
  return (
    <Link href={`/jobs/${job.id}`} className="lane">
      <span className="lane-name">
        <StatusGlyph status={job.status} />
        <strong>{jobTitle(job)}</strong>
        <span className="mono">
          {job.status} · {job.id}
        </span>
      </span>
      <Flow teacher={job.teacher} methods={job.methods} />
      <span className="lane-progress">
        <ProgressCells progress={job.progress} status={job.status} cells={24} />
      </span>
      <span className="lane-eta small num right">
        {left || `${count(job.step)} / ${count(job.total_steps)}`}
      </span>
      <span className="small num right quiet">{age(job.created_at)}</span>
      {telling && <span className={job.status === "failed" ? "lane-why bad" : "lane-why"}>{job.detail}</span>}
    </Link>
  );
}
