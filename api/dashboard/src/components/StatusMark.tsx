import type { ReactNode } from "react";

import type { Delivery, Endpoint, Status } from "../api/types";

type Shown = Status | Endpoint["status"] | Delivery["status"];

const check = <path d="m6 10.2 2.7 2.7L14 7.6" />;
const cross = <path d="m7 7 6 6m0-6-6 6" />;
const ring = <circle cx="10" cy="10" r="7.2" />;
const disc = <circle cx="10" cy="10" r="8" fill="currentColor" stroke="none" />;
const part = <circle cx="10" cy="10" r="7.2" strokeDasharray="5.5 3.5" className="spin" />;
const onDisc = (glyph: ReactNode) => <g stroke="var(--bg)" strokeWidth="2">{glyph}</g>;

const GLYPHS: Record<Shown, ReactNode> = {
  queued: <circle cx="10" cy="10" r="7.2" strokeDasharray="1.5 3" />,
  starting: part,
  deploying: part,
  running: <>{part}<circle cx="10" cy="10" r="3.5" fill="currentColor" stroke="none" /></>,
  finishing: <>{part}<path d="m7.2 10.2 2 2 3.8-4" /></>,
  paused: <>{ring}<path d="M8.2 7.5v5M11.8 7.5v5" /></>,
  succeeded: <>{disc}{onDisc(check)}</>,
  ready: <>{disc}{onDisc(check)}</>,
  failed: <>{disc}{onDisc(cross)}</>,
  cancelled: <>{ring}<path d="M6.5 10h7" /></>,
  pending: part,
  delivered: <>{disc}{onDisc(check)}</>,
  dead: <>{disc}{onDisc(cross)}</>,
  deleting: <>{ring}<path d="M6.5 10h7" /></>,
};

export function StatusGlyph({ status }: { status: Shown }) {
  return (
    <svg className={`is-${status}`} viewBox="0 0 20 20" fill="none" stroke="currentColor" strokeWidth="1.8"
      strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      {GLYPHS[status]}
    </svg>
  );
}

export function StatusMark({ status }: { status: Shown }) {
  return (
    <span className={`status is-${status}`} data-status={status}>
      <StatusGlyph status={status} />
      {status}
    </span>
  );
}
