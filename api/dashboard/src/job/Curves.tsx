import { useState } from "react";

import { Chart } from "./Chart";
import { useMetrics } from "./useMetrics";

const FIRST = ["loss", "grad_norm", "images_per_second"];
const TITLES: Record<string, string> = {
  loss: "Loss",
  grad_norm: "Gradient norm",
  images_per_second: "Images per second",
  learning_rate: "Learning rate",
};
const COLORS: Record<string, string> = {
  loss: "--student",
  grad_norm: "--series-3",
  images_per_second: "--series-4",
  learning_rate: "--ink-2",
};

function ordered(names: string[]): string[] {
  const own = names.filter((n) => !FIRST.includes(n) && n !== "learning_rate").sort();
  return [...FIRST, ...own, "learning_rate"].filter((n) => names.includes(n));
}

function title(name: string): string {
  const words = name.replaceAll("_", " ");
  return TITLES[name] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

interface Props {
  jobId: string;
  every: number | null;
  version: string;
}

/** The common figures and the method's own, live. */
export function Curves({ jobId, every, version }: Props) {
  const columns = useMetrics(jobId, every, version);
  const [log, setLog] = useState(false);
  const [smoothing, setSmoothing] = useState(0.8);
  return (
    <section className="card" aria-labelledby="curves">
      <div className="card-head">
        <h2 id="curves">Curves</h2>
        <div className="row">
          <label className="check">
            <input type="checkbox" checked={log} onChange={(event) => setLog(event.target.checked)} />
            log axis
          </label>
          <label className="check">
            smoothing
            <input type="range" min={0} max={0.98} step={0.02} value={smoothing} style={{ width: "7rem" }}
              onChange={(event) => setSmoothing(Number(event.target.value))} />
          </label>
        </div>
      </div>
      {columns?.steps.length === 0 && <p className="quiet">The first figures come with the first step.</p>}
      {columns && columns.steps.length > 0 && (
        <div className="charts">
          {ordered(Object.keys(columns.values)).map((name) => (
            <Chart key={name} title={title(name)} steps={columns.steps} values={columns.values[name] ?? []}
              stages={columns.stages}
              color={COLORS[name] ?? "--series-5"} log={log}
              smoothing={name === "learning_rate" ? 0 : smoothing} />
          ))}
        </div>
      )}
    </section>
  );
}
