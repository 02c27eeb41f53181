import type { Job } from "../api/types";

/** Whether nothing more will come of the job unless it is retried. */
export function isOver(job: Job): boolean {
  return job.status === "succeeded" || job.status === "failed" || job.status === "cancelled";
}
