import { get } from "../api/client";
import type { Job, JobEvent, Page } from "../api/types";
import { Notice } from "../components/Notice";
import { StatusGlyph } from "../components/StatusMark";
import { clock, duration, moment } from "../format";
import { usePoll } from "../hooks/usePoll";

interface Props {
  job: Job;
  every: number | null;
  version: string;
}

function title(event: JobEvent): string {
  if (event.status) return event.status;
  return event.type;
}

/** Every change of state with its reason, and the attempts below. */
export function Timeline({ job, every, version }: Props) {
  const path = `/v1/jobs/${job.id}/events?limit=100`;
  const { data, error } = usePoll(`${path} ${version}`, (signal) => get<Page<JobEvent>>(path, signal), every);
  const events = data?.data ?? [];
  return (
    <section className="card" aria-labelledby="timeline">
      <div className="card-head"><h2 id="timeline">Timeline</h2></div>
      <Notice error={error} />
      <ol className="timeline">
        {events.map((event) => (
          <li key={event.seq}>
            {event.status ? <StatusGlyph status={event.status} /> : <span className="dot" />}
            <div>
              <div className="top">
                <strong>{title(event)}</strong>
                <time dateTime={event.at} title={moment(event.at)}>{clock(event.at)}</time>
              </div>
              <p>{event.message}</p>
            </div>
          </li>
        ))}
      </ol>
      {job.attempts.length > 0 && (
        <div className="table-scroll" style={{ marginTop: "1.2rem" }}>
          <table>
            <thead>
              <tr><th scope="col">Attempt</th><th scope="col">Took</th><th scope="col">Ended</th></tr>
            </thead>
            <tbody>
              {job.attempts.map((attempt) => {
                const end = attempt.ended_at ? Date.parse(attempt.ended_at) : Date.now();
                return (
                  <tr key={attempt.id} title={attempt.submission_id}>
                    <td>{attempt.number}</td>
                    <td>{duration((end - Date.parse(attempt.created_at)) / 1000)}</td>
                    <td>{attempt.ended_at ? (attempt.reason ?? "ended").replaceAll("_", " ") : "runs"}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
