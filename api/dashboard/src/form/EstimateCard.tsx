import type { Validation } from "../api/types";
import { bytes, count, plural } from "../format";

/** What the server says the job will be. */
export function EstimateCard({ validation, pending }: { validation: Validation | null; pending: boolean }) {
  return (
    <section className="card estimate" aria-live="polite" aria-busy={pending} aria-label="Estimate">
      <h2>What it will be</h2>
      {!validation && <p className="quiet">{pending ? "Asking the server…" : "Mend the fields in red first."}</p>}
      {validation && (
        <>
          <p><span className="big">{count(validation.total_steps)}</span> <span className="quiet">training steps</span></p>
          <dl className="facts">
            <dt>Memory per worker</dt>
            <dd>about {bytes(validation.estimated_memory_bytes)}</dd>
            <dt title="The sampling steps that each is made for">Students</dt>
            <dd className="row">
              {validation.students.map((steps, i) => (
                <span key={i} className="chip student">in {steps.join(", ")}</span>
              ))}
            </dd>
            <dt>Judged on</dt>
            <dd>{plural(validation.spec.evaluation?.samples ?? 0, "sample")} beside the teacher</dd>
          </dl>
        </>
      )}
    </section>
  );
}
