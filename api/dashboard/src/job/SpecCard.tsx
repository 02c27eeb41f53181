import { useState } from "react";

import type { Job } from "../api/types";
import { Segments } from "../components/Segments";
import { Snippet } from "../components/Snippet";
import { short } from "../form/short";
import { asCli, asCurl, asPython } from "./snippets";

const VIEWS = [["json", "JSON"], ["curl", "curl"], ["cli", "CLI"], ["python", "Python"]] as const;
type View = (typeof VIEWS)[number][0];
const FILES: Record<View, string> = { json: "job.json", curl: "Shell", cli: "Shell", python: "Python" };

/** What was asked for, and how to ask for it again from elsewhere. */
export function SpecCard({ job }: { job: Job }) {
  const [view, setView] = useState<View>("json");
  const text = {
    json: () => JSON.stringify(short(job.spec), null, 2),
    curl: () => asCurl(job.spec),
    cli: () => asCli(job.spec),
    python: () => asPython(job.spec),
  }[view]();
  return (
    <section className="card spec" aria-labelledby="spec">
      <div className="card-head"><h2 id="spec">Spec</h2></div>
      <div className="stack">
        <Segments label="Show the spec as" options={VIEWS} value={view} onChange={setView} />
        <Snippet text={text} label={FILES[view]} />
      </div>
    </section>
  );
}
