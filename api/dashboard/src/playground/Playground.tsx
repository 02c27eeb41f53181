import { useEffect, useRef, useState } from "react";

import { ApiError } from "../api/client";
import type { Endpoint } from "../api/types";
import { useQuery } from "../router";
import { Controls } from "./Controls";
import type { Settings } from "./Controls";
import { generate } from "./generate";
import type { Asked, Run } from "./generate";
import { History } from "./History";
import type { Past } from "./History";
import { RunCard } from "./RunCard";

const MOST_KEPT = 24;
const CRISP_BELOW = 65;

interface Side {
  run: Run | null;
  error: ApiError | null;
}

const NOTHING: Side = { run: null, error: null };

async function side(made: Promise<Run>): Promise<Side> {
  try {
    return { run: await made, error: null };
  } catch (cause) {
    if (!(cause instanceof ApiError)) throw cause;
    return { run: null, error: cause };
  }
}

function fromAddress(asked: URLSearchParams, endpoint: Endpoint): Settings {
  const number = (name: string, fallback: number): number => Number(asked.get(name) ?? fallback);
  const first = endpoint.steps[0] ?? 1;
  const steps = number("steps", first);
  return {
    endpoint: endpoint.name,
    label: endpoint.num_classes === null ? null : Math.min(number("class", 7), endpoint.num_classes - 1),
    prompt: asked.get("prompt") ?? "",
    seed: number("seed", 1),
    steps: endpoint.steps.includes(steps) ? steps : first,
    teacherSteps: number("teacher_steps", 50),
    n: number("n", 4),
  };
}

/** Whether the student was faster, in words. */
function verdict(student: Run | null, teacher: Run | null): string | null {
  if (!student || !teacher || student.ms <= 0) return null;
  const ratio = teacher.ms / student.ms;
  if (ratio < 1.15) return null;
  return `The student answered ${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio)} times as fast, from the same noise.`;
}

/** Teacher and student on the same seed, side by side; the address holds the settings. */
export function Playground({ endpoints }: { endpoints: Endpoint[] }) {
  const [asked, change] = useQuery();
  const endpoint = endpoints.find((e) => e.name === asked.get("endpoint")) ?? endpoints[0]!;
  const settings = fromAddress(asked, endpoint);
  const [student, setStudent] = useState<Side>(NOTHING);
  const [teacher, setTeacher] = useState<Side>(NOTHING);
  const [history, setHistory] = useState<Past[]>([]);
  const [busy, setBusy] = useState(false);
  const abort = useRef(new AbortController());
  useEffect(() => () => abort.current.abort(), []);

  const apply = (changes: Partial<Settings>): void => {
    if (changes.endpoint !== undefined) {
      setStudent(NOTHING);
      setTeacher(NOTHING);
    }
    const next = { ...settings, ...changes };
    change({
      endpoint: next.endpoint,
      class: next.label === null ? null : String(next.label),
      prompt: next.prompt,
      seed: String(next.seed),
      steps: String(next.steps),
      teacher_steps: String(next.teacherSteps),
      n: String(next.n),
    });
  };

  const run = async (): Promise<void> => {
    abort.current = new AbortController();
    const { signal } = abort.current;
    const wanted: Asked = { label: settings.label, prompt: settings.prompt, seed: settings.seed, n: settings.n };
    setBusy(true);
    try {
      // One after the other: side by side they would slow each other down and spoil the times.
      const ofStudent = await side(generate(endpoint.name, settings.steps, wanted, signal));
      setStudent(ofStudent);
      const ofTeacher = endpoint.with_teacher
        ? await side(generate(`${endpoint.name}:teacher`, settings.teacherSteps, wanted, signal))
        : NOTHING;
      setTeacher(ofTeacher);
      const past: Past = {
        id: Date.now(), endpoint: endpoint.name, asked: wanted, student: ofStudent.run, teacher: ofTeacher.run,
      };
      if (past.student || past.teacher) setHistory((old) => [past, ...old].slice(0, MOST_KEPT));
    } catch (cause) {
      if (!signal.aborted) throw cause;
    } finally {
      if (!signal.aborted) setBusy(false);
    }
  };

  const recall = (past: Past): void => {
    apply({ endpoint: past.endpoint, ...past.asked, ...(past.student ? { steps: past.student.steps } : {}) });
    setStudent({ run: past.student, error: null });
    setTeacher({ run: past.teacher, error: null });
  };

  const crisp = (endpoint.image_size[2] ?? 0) < CRISP_BELOW;
  const told = verdict(student.run, teacher.run);
  return (
    <div className="stack">
      <Controls endpoints={endpoints} endpoint={endpoint} settings={settings} busy={busy} onChange={apply}
        onGenerate={() => void run()} />
      <p className="verdict" role="status">{told ?? ""}</p>
      <div className="duel">
        {endpoint.with_teacher && (
          <RunCard who="teacher" run={teacher.run} error={teacher.error} busy={busy} crisp={crisp} />
        )}
        <RunCard who="student" run={student.run} error={student.error} busy={busy} crisp={crisp} />
      </div>
      <History runs={history} crisp={crisp} onRecall={recall} />
    </div>
  );
}
