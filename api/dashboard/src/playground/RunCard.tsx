import type { ApiError } from "../api/client";
import { Notice } from "../components/Notice";
import { figure, plural } from "../format";
import type { Run } from "./generate";

interface Props {
  who: "teacher" | "student";
  run: Run | null;
  error: ApiError | null;
  busy: boolean;
  crisp: boolean;
}

/** What one model made, with its time and steps under it. */
export function RunCard({ who, run, error, busy, crisp }: Props) {
  const size = run?.shots.length === 1 ? " one" : (run?.shots.length ?? 0) <= 4 ? " few" : "";
  return (
    <section className={`card of-${who}`} aria-label={who} aria-busy={busy} data-who={who}>
      <div className="card-head">
        <h2 className={`${who}-ink`}>{who === "teacher" ? "Teacher" : "Student"}</h2>
        {run && (
          <span className="num">
            <strong>{figure(run.ms)} ms</strong> <span className="quiet">in {plural(run.steps, "step")}</span>
          </span>
        )}
      </div>
      <Notice error={error} />
      {run ? (
        <div className={`shots${size}`} style={{ opacity: busy ? 0.5 : 1 }}>
          {run.shots.map((shot) => (
            <figure key={shot.seed}>
              <img src={shot.src} className={crisp ? "crisp" : ""} alt={`Sample of the ${who}, seed ${shot.seed}`} />
              <figcaption>{shot.seed}</figcaption>
            </figure>
          ))}
        </div>
      ) : (
        !error && <p className="shots blank">{busy ? "Sampling…" : "Nothing generated yet."}</p>
      )}
    </section>
  );
}
