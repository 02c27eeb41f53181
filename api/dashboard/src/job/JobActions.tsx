import { useState } from "react";

import { ApiError, post } from "../api/client";
import type { Job } from "../api/types";
import { Notice } from "../components/Notice";
import { Link } from "../router";

type Verb = "cancel" | "pause" | "resume" | "retry";

/** What may be asked of a job in its present state. */
function verbs(job: Job): Verb[] {
  if (job.status === "paused") return ["resume", "cancel"];
  if (job.status === "failed" || job.status === "cancelled") return ["retry"];
  if (job.status === "finishing") return ["cancel"];
  if (job.status === "succeeded") return [];
  return ["pause", "cancel"];
}

const WORDS: Record<Verb, string> = { cancel: "Cancel", pause: "Pause", resume: "Resume", retry: "Retry" };
const ASKED: Partial<Record<Verb, string>> = { cancel: "Cancelling…", pause: "Pausing…" };

export function JobActions({ job, onDone }: { job: Job; onDone: () => void }) {
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);

  const ask = async (verb: Verb): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await post<Job>(`/v1/jobs/${job.id}/${verb}`);
      onDone();
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setError(cause);
    } finally {
      setBusy(false);
    }
  };

  return (
    <>
      <Notice error={error} />
      <Link href={`/jobs/new?from=${job.id}`} className="button">Clone with changes</Link>
      {verbs(job).map((verb) => {
        const asked = (verb === "cancel" || verb === "pause") && job.wish === verb && job.status !== "paused";
        const tone = verb === "cancel" ? " danger" : verb === "resume" || verb === "retry" ? " primary" : "";
        return (
          <button key={verb} type="button" className={`button${tone}`} disabled={busy || asked}
            onClick={() => void ask(verb)}>
            {asked ? ASKED[verb] : WORDS[verb]}
          </button>
        );
      })}
    </>
  );
}
