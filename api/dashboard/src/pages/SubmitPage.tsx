import { get } from "../api/client";
import type { Job } from "../api/types";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { draftOf, newStage } from "../form/draft";
import type { Draft } from "../form/draft";
import { JobForm } from "../form/JobForm";
import { useGroups } from "../form/useGroups";
import { useDatasets } from "../hooks/useDatasets";
import { useMethods } from "../hooks/useMethods";
import { usePoll } from "../hooks/usePoll";
import { useTeachers } from "../hooks/useTeachers";
import { Link, useQuery } from "../router";

/** A new job from nothing, or from another job's spec (`?from=job_…`). */
export function SubmitPage() {
  const [asked] = useQuery();
  const from = asked.get("from");
  const methods = useMethods();
  const teachers = useTeachers();
  const { datasets } = useDatasets();
  const groups = useGroups();
  const { data: origin, error } = usePoll(
    `origin ${from}`,
    async (signal) => (from ? await get<Job>(`/v1/jobs/${from}`, signal) : null),
    null,
  );

  const waiting = !methods || !teachers || !datasets || !groups || (from !== null && !origin);
  const initial = (): Draft => {
    if (origin && groups) return draftOf(origin.spec, groups);
    const kind = asked.get("method") ?? methods?.[0]?.kind ?? "";
    const teacher = asked.get("teacher") ?? teachers?.[0]?.name ?? "";
    const data = asked.get("data") ?? "";
    return { name: "", teacher, data, prompts: "", stages: [newStage(kind)], groups: {} };
  };
  return (
    <>
      <PageHead
        title={from ? "Clone with changes" : "New job"}
        crumbs={<><Link href="/jobs">Jobs</Link> / new</>}
        lead={from
          ? <>Filled from <Link href={`/jobs/${from}`} className="mono">{from}</Link>.</>
          : "Choose a teacher and a method; every setting has a tested default."}
      />
      <Notice error={error} />
      {!waiting && (
        <JobForm initial={initial()} methods={methods} teachers={teachers} datasets={datasets} groups={groups} />
      )}
    </>
  );
}
