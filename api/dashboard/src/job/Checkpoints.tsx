import { get } from "../api/client";
import type { Checkpoint, Page } from "../api/types";
import { Notice } from "../components/Notice";
import { bytes, clock, count } from "../format";
import { usePoll } from "../hooks/usePoll";

interface Props {
  jobId: string;
  every: number | null;
  version: string;
}

export function Checkpoints({ jobId, every, version }: Props) {
  const path = `/v1/jobs/${jobId}/checkpoints`;
  const { data, error } = usePoll(`${path} ${version}`, (signal) => get<Page<Checkpoint>>(path, signal), every);
  return (
    <section className="card" aria-labelledby="checkpoints">
      <div className="card-head"><h2 id="checkpoints">Checkpoints</h2></div>
      <Notice error={error} />
      {data?.data.length === 0 && <p className="quiet small">None yet.</p>}
      {data && data.data.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">Step</th><th scope="col">Size</th><th scope="col">Attempt</th><th scope="col">Saved</th>
            </tr>
          </thead>
          <tbody>
            {data.data.map((row) => (
              <tr key={`${row.attempt}-${row.step}`} title={row.path}>
                <td>{count(row.step)}</td><td>{bytes(row.bytes)}</td><td>{row.attempt}</td><td>{clock(row.at)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}
