import { useState } from "react";

import type { Method } from "../api/types";
import { FAMILY_OPTIONS, FamilyMark } from "../components/FamilyMark";
import { PageHead } from "../components/PageHead";
import { Segments } from "../components/Segments";
import { fieldsOf } from "../form/fields";
import type { FieldSpec, JsonSchema } from "../form/fields";
import { useMethods } from "../hooks/useMethods";
import { Link } from "../router";

function range(field: FieldSpec): string {
  if (field.min === undefined || field.max === undefined) return "";
  return `${field.openMin ? "(" : "["}${field.min}, ${field.max}${field.openMax ? ")" : "]"}`;
}

function MethodCard({ method }: { method: Method }) {
  return (
    <article className="card method-page" id={method.kind}>
      <div className="stack">
        <FamilyMark family={method.family} />
        <h2>{method.title}</h2>
        <p>{method.summary}</p>
        <p className="small quiet">
          <a href={`https://arxiv.org/abs/${method.paper.replace("arXiv:", "")}`} target="_blank" rel="noreferrer">
            {method.paper}
          </a>
          , {method.data_need === "none" ? "needs no data" : `needs ${method.data_need}`}; {method.forwards} forward
          and {method.backwards} backward passes a step.
        </p>
        {method.known_limit && <p className="small quiet">Known limit: {method.known_limit}</p>}
        <div className="row"><Link href={`/jobs/new?method=${method.kind}`} className="button">Use this method</Link></div>
      </div>
      <div className="table-scroll" tabIndex={0} role="region" aria-label={`Settings of ${method.title}`}>
        <table className="settings">
          <thead>
            <tr><th scope="col">Setting</th><th scope="col">Default</th><th scope="col">Range</th><th scope="col">What it does</th></tr>
          </thead>
          <tbody>
            {fieldsOf(method.json_schema as JsonSchema).map((field) => (
              <tr key={field.name}>
                <td className="mono">{field.name}</td><td className="mono">{field.fallback}</td>
                <td className="mono quiet">{range(field)}</td><td>{field.help}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </article>
  );
}

export function MethodsPage() {
  const methods = useMethods();
  const [family, setFamily] = useState<Method["family"]>("fidelity");
  return (
    <>
      <PageHead title="Methods" lead="How a student learns to take fewer steps than its teacher." />
      <div className="stack">
        <Segments label="Family" options={FAMILY_OPTIONS} value={family} onChange={setFamily} />
        {methods?.filter((m) => m.family === family).map((m) => <MethodCard key={m.kind} method={m} />)}
      </div>
    </>
  );
}
