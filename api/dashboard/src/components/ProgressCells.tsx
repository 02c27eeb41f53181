import type { CSSProperties } from "react";

import type { Status } from "../api/types";

/** A fixed grain per cell, so that the noise does not dance at every poll. */
function grain(i: number): number {
  const x = Math.sin(i * 127.1 + 311.7) * 43758.5453;
  return x - Math.floor(x);
}

interface Props {
  progress: number;
  status: Status;
  cells?: number;
}

export function ProgressCells({ progress, status, cells = 32 }: Props) {
  const done = Math.floor(progress * cells + 1e-6);
  const live = status === "running" || status === "starting" || status === "finishing";
  const tone = status === "failed" ? " failed" : status === "succeeded" ? " over" : status === "cancelled" || status === "paused" ? " muted" : "";
  return (
    <div className={`cells${live ? " live" : ""}${tone}`} style={{ "--n": cells } as CSSProperties}
      role="progressbar" aria-label="Progress" aria-valuemin={0} aria-valuemax={100}
      aria-valuenow={Math.round(progress * 100)}>
      {Array.from({ length: cells }, (_, i) => (
        <i key={i} className={i < done ? "done" : live && i === done ? "edge" : ""}
          style={{ "--grain": grain(i) } as CSSProperties} />
      ))}
    </div>
  );
}
