import { useEffect, useState } from "react";

import { get, query } from "../api/client";
import type { Page, Sample } from "../api/types";
import { PauseIcon, PlayIcon } from "../components/icons";
import { Notice } from "../components/Notice";
import { Segments } from "../components/Segments";
import { count } from "../format";
import { usePoll } from "../hooks/usePoll";
import { SampleRow } from "./SampleRow";

async function allSamples(jobId: string, signal: AbortSignal): Promise<Sample[]> {
  const rows: Sample[] = [];
  let after: string | null = null;
  do {
    const page: Page<Sample> = await get(`/v1/jobs/${jobId}/samples${query({ after })}`, signal);
    rows.push(...page.data);
    after = page.has_more ? page.next : null;
  } while (after !== null);
  return rows;
}

interface Props {
  jobId: string;
  every: number | null;
  version: string;
}

/** The same seeds at every preview: the teacher's row stays above, the slider goes through the student's steps. */
export function Samples({ jobId, every, version }: Props) {
  const { data, error } = usePoll(`${jobId} samples ${version}`, (signal) => allSamples(jobId, signal), every);
  const [chosen, setChosen] = useState<number | null>(null);
  const [playing, setPlaying] = useState(false);
  const [view, setView] = useState<"one" | "film">("one");

  const samples = data ?? [];
  const teacher = samples.filter((s) => s.role === "teacher").sort((a, b) => b.sampling_steps - a.sampling_steps);
  const student = samples.filter((s) => s.role === "student");
  const steps = [...new Set(student.map((s) => s.step))].sort((a, b) => a - b);
  const last = steps.length - 1;
  const at = Math.min(chosen ?? last, last);

  useEffect(() => {
    if (!playing) return;
    const timer = setInterval(() => setChosen((now) => ((now ?? last) >= last ? 0 : (now ?? last) + 1)), 350);
    return () => clearInterval(timer);
  }, [playing, last]);

  const now = student.filter((s) => s.step === steps[at]).sort((a, b) => a.sampling_steps - b.sampling_steps);
  return (
    <section className="card" aria-labelledby="samples">
      <div className="card-head">
        <h2 id="samples">Samples</h2>
        {steps.length > 1 && (
          <Segments label="View" value={view} onChange={setView}
            options={[["one", "One step"], ["film", "All steps"]]} />
        )}
      </div>
      <Notice error={error} />
      {data?.length === 0 && <p className="quiet">The first grid comes when training starts.</p>}
      <div className="sample-rows">
        {teacher.length > 0 && (
          <div className="sample-rows pinned">
            {teacher.map((sample) => <SampleRow key={sample.id} sample={sample} />)}
          </div>
        )}
        {view === "one" && now.map((sample) => <SampleRow key={sample.sampling_steps} sample={sample} />)}
        {view === "film" && (
          <div className="sample-rows film" tabIndex={0} role="region" aria-label="Samples of all steps">
            {[...student].reverse().map((sample) => <SampleRow key={sample.id} sample={sample} stepFirst />)}
          </div>
        )}
      </div>
      {view === "one" && steps.length > 1 && (
        <div className="stepper">
          <button type="button" className="button square" aria-label={playing ? "Stop" : "Play through the steps"}
            onClick={() => setPlaying(!playing)}>
            {playing ? <PauseIcon /> : <PlayIcon />}
          </button>
          <input type="range" aria-label="Training step" aria-valuetext={`step ${steps[at] ?? 0}`} min={0} max={last}
            value={at} onChange={(event) => {
              const next = Number(event.target.value);
              setPlaying(false);
              setChosen(next === last ? null : next);
            }} />
          <output className="small num" data-testid="sample-step">
            step {count(steps[at] ?? 0)}{chosen === null && every !== null ? ", newest" : ""}
          </output>
        </div>
      )}
    </section>
  );
}
