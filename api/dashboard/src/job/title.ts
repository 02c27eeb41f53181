import type { Job } from "../api/types";

/** The job's name, or what it does. */
export function jobTitle(job: Job): string {
  return job.name ?? `${job.methods.join(", then ")} of ${job.teacher}`;
}
