import type { FormEvent } from "react";

import type { Endpoint } from "../api/types";
import { DiceIcon } from "../components/icons";
import type { Asked } from "./generate";

export interface Settings extends Asked {
  endpoint: string;
  steps: number;
  teacherSteps: number;
}

interface Props {
  endpoints: Endpoint[];
  endpoint: Endpoint;
  settings: Settings;
  busy: boolean;
  onChange: (changes: Partial<Settings>) => void;
  onGenerate: () => void;
}

const MOST_BUTTONS = 20;

export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! % 1_000_000;
}

function whole(text: string, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.round(Number(text)) || least));
}

function ClassPicker({ count, value, onPick }: { count: number; value: number | null; onPick: (n: number) => void }) {
  if (count > MOST_BUTTONS) {
    return (
      <div className="field">
        <label htmlFor="class">Class</label>
        <input id="class" type="number" min={0} max={count - 1} value={value ?? 0}
          onChange={(event) => onPick(whole(event.target.value, 0, count - 1))} />
      </div>
    );
  }
  return (
    <div className="field class-field">
      <span className="label">Class</span>
      <div className="classes" role="group" aria-label="Class">
        {Array.from({ length: count }, (_, i) => (
          <button key={i} type="button" aria-pressed={value === i} onClick={() => onPick(i)}>{i}</button>
        ))}
      </div>
    </div>
  );
}

export function Controls({ endpoints, endpoint, settings, busy, onChange, onGenerate }: Props) {
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    onGenerate();
  };
  return (
    <form className="card play-controls" onSubmit={submit}>
      <div className="field wide">
        <label htmlFor="endpoint">Endpoint</label>
        <select id="endpoint" value={endpoint.name} onChange={(event) => onChange({ endpoint: event.target.value })}>
          {endpoints.map((e) => <option key={e.id}>{e.name}</option>)}
        </select>
      </div>
      {endpoint.num_classes !== null ? (
        <ClassPicker count={endpoint.num_classes} value={settings.label} onPick={(label) => onChange({ label })} />
      ) : (
        <div className="field wide">
          <label htmlFor="prompt">Prompt</label>
          <input id="prompt" required={endpoint.text} value={settings.prompt} onChange={(event) => onChange({ prompt: event.target.value })} />
        </div>
      )}
      <div className="field">
        <label htmlFor="seed">Seed</label>
        <div className="row" style={{ flexWrap: "nowrap" }}>
          <input id="seed" type="number" min={0} value={settings.seed}
            onChange={(event) => onChange({ seed: whole(event.target.value, 0, Number.MAX_SAFE_INTEGER) })} />
          <button type="button" className="button bare square" style={{ flex: "none" }} aria-label="Another seed"
            onClick={() => onChange({ seed: randomSeed() })}>
            <DiceIcon />
          </button>
        </div>
      </div>
      <div className="field">
        <label htmlFor="steps">Student steps</label>
        <select id="steps" value={settings.steps} onChange={(event) => onChange({ steps: Number(event.target.value) })}>
          {endpoint.steps.map((n) => <option key={n}>{n}</option>)}
        </select>
      </div>
      {endpoint.with_teacher && (
        <div className="field">
          <label htmlFor="teacher-steps">Teacher steps</label>
          <input id="teacher-steps" type="number" min={1} max={1000} value={settings.teacherSteps}
            onChange={(event) => onChange({ teacherSteps: whole(event.target.value, 1, 1000) })} />
        </div>
      )}
      <div className="field">
        <label htmlFor="n">Images</label>
        <input id="n" type="number" min={1} max={16} value={settings.n}
          onChange={(event) => onChange({ n: whole(event.target.value, 1, 16) })} />
      </div>
      <button type="submit" className="button primary" disabled={busy}>{busy ? "Sampling…" : "Generate"}</button>
    </form>
  );
}
