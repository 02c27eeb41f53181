import type { Validation } from "../api/types";
import { bytes, count, duration, plural } from "../format";

const PARTS = ["weights", "optimizer", "gradients", "activations", "encoders"] as const;
const WHILE = { starting: "while it starts", training: "while it trains", evaluating: "while students are judged" };

/** What the server says the job will be. */
export function EstimateCard({ validation, pending }: { validation: Validation | null; pending: boolean }) {
  const memory = validation?.memory;
  const advice = validation?.advice ?? [];
  return (
    <section className="card estimate" aria-live="polite" aria-busy={pending} aria-label="Estimate">
      <h2>What it will be</h2>
      {!validation && <p className="quiet">{pending ? "Asking the server…" : "Mend the fields in red first."}</p>}
      {validation && (
        <>
          <p><span className="big">{count(validation.total_steps)}</span> <span className="quiet">training steps</span></p>
          <dl className="facts">
            <dt>Memory per worker</dt>
            <dd>{validation.estimated_memory_bytes == null ? "not known of this teacher" : `about ${bytes(validation.estimated_memory_bytes)}`}</dd>
            {validation.memory_phase && (
              <>
                <dt>Most of it</dt>
                <dd>{WHILE[validation.memory_phase]}</dd>
              </>
            )}
            {memory && (
              <>
                <dt>Of which</dt>
                <dd className="quiet">{PARTS.filter((part) => memory[part] > 0).map((part) => `${part} ${bytes(memory[part])}`).join(", ")}</dd>
              </>
            )}
            {validation.step_seconds != null && (
              <>
                <dt title="Arithmetic alone, at the speed that devices keep up">Each step</dt>
                <dd>about {validation.step_seconds < 1 ? `${(1000 * validation.step_seconds).toPrecision(2)} ms` : duration(validation.step_seconds)}</dd>
              </>
            )}
            <dt title="The sampling steps that each is made for">Students</dt>
            <dd className="row">
              {validation.students.map((steps, i) => (
                <span key={i} className="chip student">in {steps.join(", ")}</span>
              ))}
            </dd>
            <dt>Judged on</dt>
            <dd>{plural(validation.spec.evaluation?.samples ?? 0, "sample")} beside the teacher</dd>
          </dl>
          {advice.length > 0 && (
            <>
              <p>It does not fit into a device:</p>
              <ul>
                {advice.map((sentence) => (
                  <li key={sentence}>{sentence}</li>
                ))}
              </ul>
            </>
          )}
        </>
      )}
    </section>
  );
}
