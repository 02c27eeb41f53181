import type { ReactNode } from "react";

import type { Method } from "../api/types";

const GLYPHS: Record<Method["family"], ReactNode> = {
  fidelity: <path d="M2 5h12M2 11h12" />,
  trajectory: <path d="M2 13C5 3 10 13 14 3" />,
  adversarial: <path d="M2 8h4.5M14 8H9.5M5 5.5 7.5 8 5 10.5M11 5.5 8.5 8l2.5 2.5" />,
};

export const FAMILY_OPTIONS: readonly (readonly [Method["family"], string])[] = [
  ["fidelity", "Fidelity"],
  ["trajectory", "Trajectory"],
  ["adversarial", "Adversarial"],
];

export function FamilyMark({ family }: { family: Method["family"] }) {
  return (
    <span className="family">
      <svg viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.7" strokeLinecap="round" aria-hidden="true">
        {GLYPHS[family]}
      </svg>
      {family}
    </span>
  );
}
