import { figure } from "../format";
import type { Asked, Run } from "./generate";

export interface Past {
  id: number;
  endpoint: string;
  asked: Asked;
  student: Run | null;
  teacher: Run | null;
}

interface Props {
  runs: Past[];
  crisp: boolean;
  onRecall: (past: Past) => void;
}

function Thumb({ run, crisp }: { run: Run | null; crisp: boolean }) {
  const first = run?.shots[0];
  return first ? <img src={first.src} className={crisp ? "crisp" : ""} alt="" /> : null;
}

/** Earlier runs; one click shows one again with its settings. */
export function History({ runs, crisp, onRecall }: Props) {
  if (runs.length === 0) return null;
  return (
    <section aria-labelledby="history" className="stack">
      <h2 id="history">Earlier</h2>
      <div className="strip">
        {runs.map((past) => (
          <button key={past.id} type="button" onClick={() => onRecall(past)}
            aria-label={`Show the run with seed ${past.asked.seed} again`}>
            <span className="pair">
              <Thumb run={past.teacher} crisp={crisp} />
              <Thumb run={past.student} crisp={crisp} />
            </span>
            <span>
              {past.asked.label !== null ? `class ${past.asked.label}` : past.asked.prompt.slice(0, 14)} · {past.asked.seed}
            </span>
            <span>{figure(past.student?.ms)} ms</span>
          </button>
        ))}
      </div>
    </section>
  );
}
