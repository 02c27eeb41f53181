import { useEffect, useRef, useState } from "react";

import { get, query } from "../api/client";
import type { Metric, Page } from "../api/types";

const AT_ONCE = 1000;

/** Columns of figures over steps, as uPlot wants them; a step without a figure has null. */
export interface Columns {
  steps: number[];
  values: Record<string, (number | null)[]>;
  /** Steps at which a new stage begins. */
  stages: number[];
}

function append(columns: Columns, rows: Metric[], lastStage: number): number {
  let stage = lastStage;
  for (const row of rows) {
    const at = columns.steps.length;
    columns.steps.push(row.step);
    if (row.stage !== stage && at > 0) columns.stages.push(row.step);
    stage = row.stage;
    for (const [name, value] of Object.entries(row.values)) {
      const column = (columns.values[name] ??= new Array<number | null>(at).fill(null));
      column.push(value);
    }
    for (const column of Object.values(columns.values)) if (column.length <= at) column.push(null);
  }
  return stage;
}

/** Reads all metrics once, then only the new ones; null until the first answer. */
export function useMetrics(jobId: string, every: number | null, version: string): Columns | null {
  const kept = useRef<Columns>({ steps: [], values: {}, stages: [] });
  const cursor = useRef<{ after: string | number | null; stage: number }>({ after: null, stage: 0 });
  const [shown, show] = useState<Columns | null>(null);

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const tick = async (): Promise<void> => {
      try {
        let more = !document.hidden || kept.current.steps.length === 0;
        while (more) {
          const path = `/v1/jobs/${jobId}/metrics${query({ limit: AT_ONCE, after: cursor.current.after })}`;
          const page = await get<Page<Metric>>(path, abort.signal);
          if (abort.signal.aborted) return;
          cursor.current.stage = append(kept.current, page.data, cursor.current.stage);
          cursor.current.after = page.data.at(-1)?.step ?? cursor.current.after;
          more = page.has_more;
          if (!more) show({ ...kept.current });
        }
      } catch (cause) {
        // The job's own poll tells of a server that is away; the next round asks for the same rows again.
        if (!abort.signal.aborted) console.warn("metrics", cause);
      }
      if (every !== null && !abort.signal.aborted) timer = setTimeout(() => void tick(), every);
    };
    void tick();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [jobId, every, version]);

  return shown;
}
